/* Headers of replies: http_reply.c, which keeps its parsers to itself, and rest_reply.c */
#include "../../src/http_reply.c"

#include "fuzz.h"

#include "rest.h"
#include "url.h"

static void
check_usage(const HttpReply *reply)
{
	int64 used;
	int64 most;

	if (!reply->limit_info)
		return;
	if (rest_parse_limit_info(reply->limit_info, &used, &most))
		must(used >= 0 && most >= 0);
	if (rest_parse_app_limit_info(reply->limit_info, &used, &most))
		must(used >= 0 && most >= 0);
}

static void
check_short(const char *value)
{
	must(value == NULL || strlen(value) <= HTTP_MAX_HEADER_VALUE);
}

/* As libcurl gives them: line by line, line ends included, not zero-terminated. */
static void
headers(const uint8_t *data, size_t size)
{
	HttpReply reply = {0};
	HttpTransfer transfer = {.reply = &reply};

	while (size > 0)
	{
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end ? (size_t) (end + 1 - data) : size;
		char *line = malloc(len);

		memcpy(line, data, len);
		(void) on_header(line, 1, len, &transfer);
		free(line);
		data += len;
		size -= len;
	}
	check_usage(&reply);
	check_short(reply.locator);
	check_short(reply.request_id);
	must(parse_retry_after(transfer.retry_after, reply.server_date) >= -1);
	forget_headers(&transfer);
	free(reply.content_type);
	free(reply.last_modified);
	free(reply.locator);
}

static void
url(const uint8_t *data, size_t size)
{
	char *text = take_text(data, size);
	int len;
	const char *host = url_host(text, &len);

	must(host >= text && host + len <= text + size);
	if (url_refused(text) == NULL)
		must(strpbrk(text, " \t\r\n") == NULL);
}

const Target header_targets[] = {{"headers", headers}, {"url", url}, {NULL, NULL}};
