/*
 * test_http.c
 *		The HTTP client against a small server: what arrives, what a failure is
 *		called, and what may come out of a peer that misbehaves.
 *
 * The server is a thread for each connection; the path of a request says how
 * it is answered, and each reply of /count tells the connection's number.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strcasestr */
#endif

#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http.h"

static int port;
static char last_request[8192];

/* ------------------------------------------------------------------------
 * The server
 * ------------------------------------------------------------------------
 */

static void
put(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len > 0)
	{
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		text += n;
		len -= n;
	}
}

static void
put_large(int fd)
{
	static char block[100001];
	int i;

	memset(block, 'x', 100000);
	put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n");
	for (i = 0; i < 100; i++)
		put(fd, block);
}

static void
put_headers(int fd)
{
	int i;

	put(fd, "HTTP/1.1 200 OK\r\n");
	for (i = 0; i < 10000; i++)
		put(fd, "X-Filler: 0123456789012345678901234567890123456789\r\n");
	put(fd, "Content-Length: 0\r\n\r\n");
}

/* False when the connection is to be closed. */
static bool
answer(int fd, const char *path, int connection)
{
	char text[512];

	if (strcmp(path, "/count") == 0 || strcmp(path, "/count-and-close") == 0)
	{
		snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n%04d", connection);
		put(fd, text);
		return strcmp(path, "/count") == 0;
	}
	else if (strcmp(path, "/headers") == 0)
		put(fd,
			"HTTP/1.1 100 Continue\r\nRetry-After: 5\r\n\r\n"
			"HTTP/1.1 201 Created\r\nDATE: Tue, 24 Nov 2026 10:00:00 GMT\r\nretry-after: Tue, 24 Nov 2026 10:01:30 GMT\r\n"
			"sforce-limit-info:  api-usage=1/2\xc3\xa4 \r\nX-SFDC-request-id: abc\r\nContent-type: a/b\r\n"
			"Last-Modified: x\r\nSFORCE-LOCATOR: MTAwMA\r\nX-Date: nonsense\r\nTransfer-Encoding: chunked\r\n\r\n"
			"3\r\nabc\r\n0\r\nX-Sfdc-Request-Id: trailer\r\n\r\n");
	else if (strcmp(path, "/bad-headers") == 0)
		put(fd,
			"HTTP/1.1 200 OK\r\nDate: nonsense\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n");
	else if (strcmp(path, "/seconds") == 0)
		put(fd, "HTTP/1.1 429 Slow\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n");
	else if (strcmp(path, "/redirect") == 0)
		put(fd, "HTTP/1.1 302 Found\r\nLocation: /count\r\nContent-Length: 0\r\n\r\n");
	else if (strcmp(path, "/nothing") == 0)
		put(fd, "HTTP/1.1 100 Continue\r\nRetry-After: 5\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
	else if (strcmp(path, "/slow") == 0)
	{
		usleep(200 * 1000);
		put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	}
	else if (strcmp(path, "/hang") == 0)
		sleep(5);
	else if (strcmp(path, "/large") == 0)
		put_large(fd);
	else if (strcmp(path, "/large-headers") == 0)
		put_headers(fd);
	else if (strcmp(path, "/cut") == 0)
	{
		put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
		return false;
	}
	else if (strcmp(path, "/garbage") == 0)
	{
		put(fd, "\x01\x02 garbage\n\n");
		return false;
	}
	else
		return false; /* /drop: no byte in reply */
	return true;
}

typedef struct Connection
{
	int fd;
	int number;
} Connection;

static void *
serve_connection(void *arg)
{
	Connection *connection = arg;
	char request[8192];
	size_t len = 0;
	bool more = true;

	while (more)
	{
		char *end;
		char *header;
		size_t body = 0;
		char path[256];
		ssize_t n = recv(connection->fd, request + len, sizeof(request) - 1 - len, 0);

		if (n <= 0)
			break;
		len += n;
		request[len] = '\0';
		end = strstr(request, "\r\n\r\n");
		if (end == NULL)
			continue;
		header = strcasestr(request, "\r\ncontent-length:");
		if (header != NULL)
			body = strtoul(header + 17, NULL, 10);
		if (len < (size_t) (end + 4 - request) + body)
			continue;
		strcpy(last_request, request);
		sscanf(request, "%*s %255[^ ?]", path);
		more = answer(connection->fd, path, connection->number);
		len = 0;
	}
	close(connection->fd);
	free(connection);
	return NULL;
}

static void *
serve(void *arg)
{
	int listener = *(int *) arg;
	int number = 0;

	for (;;)
	{
		Connection *connection = malloc(sizeof(Connection));
		pthread_t thread;

		connection->fd = accept(listener, NULL, NULL);
		connection->number = ++number;
		pthread_create(&thread, NULL, serve_connection, connection);
		pthread_detach(thread);
	}
	return NULL;
}

static int
listen_locally(struct sockaddr_in *address)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(*address);

	memset(address, 0, sizeof(*address));
	address->sin_family = AF_INET;
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *) address, len) < 0 || listen(listener, 100) < 0 ||
		getsockname(listener, (struct sockaddr *) address, &len) < 0)
		return -1;
	return listener;
}

static int
start_server(void **state)
{
	static int listener;
	struct sockaddr_in address;
	pthread_t thread;

	listener = listen_locally(&address);
	if (listener < 0)
		return -1;
	port = ntohs(address.sin_port);
	signal(SIGPIPE, SIG_IGN); /* as in the server process */
	return pthread_create(&thread, NULL, serve, &listener);
}

/* ------------------------------------------------------------------------
 * The client
 * ------------------------------------------------------------------------
 */

static HttpReply *
next_reply(HttpClient *client)
{
	time_t deadline = time(NULL) + 20;
	HttpReply *reply;

	while ((reply = http_collect(client)) == NULL)
	{
		struct pollfd wait = {.fd = http_wait_fd(client), .events = POLLIN};

		assert_true(time(NULL) < deadline);
		poll(&wait, 1, 1000);
		http_pump(client);
	}
	return reply;
}

static HttpRequest
request_to(const char *path)
{
	static char url[300];
	HttpRequest request = {.method = "GET", .url = url, .timeout = 3000, .connect_timeout = 1000};

	snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", port, path);
	return request;
}

static HttpReply *
ask(HttpClient *client, HttpRequest request)
{
	request.tag = &request;
	assert_true(http_submit(client, &request));
	return next_reply(client);
}

static void
expect_outcome(const char *path, HttpOutcome outcome, const char *error)
{
	HttpClient *client = http_create();
	HttpReply *reply = ask(client, request_to(path));

	assert_int_equal(reply->outcome, outcome);
	if (error != NULL)
	{
		assert_non_null(reply->error);
		if (strstr(reply->error, error) == NULL)
			fail_msg("%s: %s", path, reply->error);
	}
	else
		assert_null(reply->error);
	http_reply_free(reply);
	http_destroy(client);
}

/* Newer libcurl has a limit of its own for headers, which is met first. */
static void
expect_refused_headers(void)
{
	HttpClient *client = http_create();
	HttpReply *reply = ask(client, request_to("/large-headers"));

	assert_true(reply->outcome == HTTP_TOO_LARGE || reply->outcome == HTTP_LOST);
	assert_non_null(reply->error);
	http_reply_free(reply);
	http_destroy(client);
}

static int
open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static void
headers(void **state)
{
	HttpClient *client = http_create();
	HttpReply *reply = ask(client, request_to("/headers?ids=1,2"));

	assert_int_equal(reply->outcome, HTTP_REPLIED);
	assert_int_equal(reply->status, 201);
	assert_string_equal(reply->body, "abc");
	assert_int_equal(reply->body_len, 3);
	assert_int_equal(reply->server_date, 1795514400);
	assert_int_equal(reply->retry_after, 90);
	assert_string_equal(reply->limit_info, "api-usage=1/2??");
	assert_string_equal(reply->request_id, "abc");
	assert_string_equal(reply->content_type, "a/b");
	assert_string_equal(reply->last_modified, "x");
	assert_string_equal(reply->resolved_ip, "127.0.0.1");
	assert_true(reply->elapsed > 0);
	http_reply_free(reply);

	reply = ask(client, request_to("/seconds"));
	assert_int_equal(reply->status, 429);
	assert_int_equal(reply->retry_after, 120);
	assert_null(reply->request_id);
	http_reply_free(reply);

	reply = ask(client, request_to("/bad-headers"));
	assert_int_equal(reply->outcome, HTTP_REPLIED);
	assert_int_equal(reply->server_date, 0);
	assert_int_equal(reply->retry_after, -1);
	http_reply_free(reply);

	reply = ask(client, request_to("/redirect"));
	assert_int_equal(reply->status, 302);
	http_reply_free(reply);
	reply = ask(client, request_to("/nothing"));
	assert_int_equal(reply->status, 204);
	assert_int_equal(reply->retry_after, -1);
	assert_int_equal(reply->body_len, 0);
	http_reply_free(reply);
	http_destroy(client);
}

static void
what_is_sent(void **state)
{
	static const char *const more[] = {"X-One: 1", "X-Two: 2", NULL};
	HttpClient *client = http_create();
	HttpRequest request = request_to("/count");

	request.method = "PATCH";
	request.content_type = "application/json";
	request.body = "{\"a\":1}";
	request.body_len = 7;
	request.bearer = "00D!x";
	request.headers = more;
	http_reply_free(ask(client, request));
	assert_true(strncmp(last_request, "PATCH /count HTTP/1.1\r\n", 23) == 0);
	assert_non_null(strstr(last_request, "\r\nAuthorization: Bearer 00D!x\r\n"));
	assert_non_null(strstr(last_request, "\r\nContent-Type: application/json\r\n"));
	assert_non_null(strstr(last_request, "\r\nContent-Length: 7\r\n"));
	assert_non_null(strstr(last_request, "\r\nX-One: 1\r\n"));
	assert_non_null(strstr(last_request, "\r\nX-Two: 2\r\n"));
	assert_non_null(strstr(last_request, "\r\nUser-Agent: sfsync/1.0\r\n"));
	assert_non_null(strstr(last_request, "\r\n\r\n{\"a\":1}"));
	assert_null(strcasestr(last_request, "Expect:"));

	/* a handle that was used keeps nothing of the last request */
	http_reply_free(ask(client, request_to("/count")));
	assert_true(strncmp(last_request, "GET /count HTTP/1.1\r\n", 21) == 0);
	assert_null(strstr(last_request, "Authorization"));
	assert_null(strstr(last_request, "X-One"));
	assert_null(strcasestr(last_request, "Content-"));

	request = request_to("/count");
	request.method = "DELETE";
	http_reply_free(ask(client, request));
	assert_true(strncmp(last_request, "DELETE /count HTTP/1.1\r\n", 24) == 0);

	request.method = "POST";
	http_reply_free(ask(client, request));
	assert_true(strncmp(last_request, "POST /count HTTP/1.1\r\n", 22) == 0);
	assert_non_null(strstr(last_request, "\r\nContent-Length: 0\r\n"));

	/* a line break never becomes a header */
	request.bearer = "a\r\nX-Injected: 1";
	assert_false(http_submit(client, &request));
	assert_int_equal(http_in_flight(client), 0);
	http_destroy(client);
}

static void
failures(void **state)
{
	expect_outcome("/cut", HTTP_LOST, "lost the connection");
	expect_outcome("/drop", HTTP_LOST, "lost the connection");
	expect_outcome("/garbage", HTTP_LOST, "lost the connection");
	expect_refused_headers();
	expect_outcome("/large", HTTP_REPLIED, NULL);
}

static void
refused(void **state)
{
	static const char *const urls[] = {
		"http://10.0.0.1/", "ftp://a",        "file:///etc/passwd", "https://user:hidden@a/",
		"https://a/?x#y",   "https://a/?x y", "nonsense",           ""};
	HttpClient *client = http_create();
	HttpRequest request = request_to("/count");
	int i;

	for (i = 0; i < lengthof(urls); i++)
	{
		HttpReply *reply;

		struct pollfd wait = {.fd = http_wait_fd(client), .events = POLLIN};

		request.url = urls[i];
		assert_true(http_submit(client, &request));
		assert_int_equal(poll(&wait, 1, 0), 1);
		reply = next_reply(client);
		assert_int_equal(reply->outcome, HTTP_NOT_SENT);
		assert_non_null(reply->error);
		assert_null(strstr(reply->error, "hidden"));
		assert_int_equal(http_in_flight(client), 0);
		http_reply_free(reply);
	}
	http_destroy(client);
}

static void
not_sent(void **state)
{
	HttpClient *client = http_create();
	HttpRequest request = request_to("/count");
	HttpReply *reply;
	char url[100];

	request.url = "http://127.0.0.1:1/";
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_NOT_SENT);
	assert_string_equal(reply->error, "could not connect to 127.0.0.1:1: Connection refused");
	assert_false(reply->tls_failed);
	http_reply_free(reply);

	/* no TLS where the server speaks none */
	snprintf(url, sizeof(url), "https://127.0.0.1:%d/drop", port);
	request.url = url;
	request.timeout = 500;
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_NOT_SENT);
	if (reply->resolved_ip != NULL) /* newer libcurl doesn't tell where TLS failed */
		assert_string_equal(reply->resolved_ip, "127.0.0.1");
	http_reply_free(reply);
	http_destroy(client);
}

static void
limits(void **state)
{
	HttpClient *client = http_create();
	HttpRequest request = request_to("/large");
	HttpReply *reply;

	request.max_reply = 1000000;
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_TOO_LARGE);
	assert_true(reply->body_len <= 1000000);
	http_reply_free(reply);

	request = request_to("/hang");
	request.timeout = 200;
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_LOST);
	assert_true(reply->timed_out);
	assert_true(reply->elapsed >= 200000 && reply->elapsed < 2000000);
	http_reply_free(reply);
	http_destroy(client);
}

static void
concurrent(void **state)
{
	HttpClient *client = http_create();
	HttpRequest request = request_to("/slow");
	bool seen[40] = {false};
	int i;

	for (i = 0; i < lengthof(seen); i++)
	{
		request.tag = &seen[i];
		assert_true(http_submit(client, &request));
	}
	assert_int_equal(http_in_flight(client), lengthof(seen));
	for (i = 0; i < lengthof(seen); i++)
	{
		HttpReply *reply = next_reply(client);

		assert_int_equal(reply->outcome, HTTP_REPLIED);
		assert_string_equal(reply->body, "ok");
		assert_true(reply->elapsed < 2000000);
		assert_false(*(bool *) reply->tag);
		*(bool *) reply->tag = true;
		http_reply_free(reply);
	}
	assert_int_equal(http_in_flight(client), 0);
	assert_null(http_collect(client));
	http_destroy(client);
}

static void
connections(void **state)
{
	HttpClient *client = http_create();
	HttpReply *first = ask(client, request_to("/count"));
	HttpReply *second = ask(client, request_to("/count-and-close"));
	HttpReply *third;

	assert_string_equal(first->body, second->body);
	usleep(50 * 1000);
	third = ask(client, request_to("/count")); /* the old one is closed by now */
	assert_int_equal(third->outcome, HTTP_REPLIED);
	assert_string_not_equal(first->body, third->body);
	http_reply_free(first);
	http_reply_free(second);
	http_reply_free(third);
	http_destroy(client);
}

static int
temporary_file(const char *content, size_t len)
{
	char name[] = "/tmp/test_http.XXXXXX";
	int fd = mkstemp(name);

	assert_true(fd > 0);
	unlink(name);
	assert_int_equal(write(fd, content, len), len);
	return fd;
}

static void
upload_from_a_file(void **state)
{
	HttpClient *client = http_create();
	HttpRequest request = request_to("/count");
	char content[5000];
	HttpReply *reply;
	char *body;
	int fd;

	memset(content, 'c', sizeof(content));
	content[4999] = '!';
	fd = temporary_file(content, sizeof(content));
	request.method = "PUT";
	request.content_type = "text/csv";
	request.body_fd = fd;
	request.body_len = sizeof(content);
	request.tag = &request;
	assert_true(http_submit(client, &request));
	close(fd); /* it has one of its own */
	reply = next_reply(client);
	assert_int_equal(reply->status, 200);
	assert_memory_equal(last_request, "PUT /count HTTP/1.1\r\n", 21);
	assert_non_null(strstr(last_request, "Content-Length: 5000\r\n"));
	assert_null(strcasestr(last_request, "\r\nExpect:"));
	body = strstr(last_request, "\r\n\r\n") + 4;
	assert_int_equal(strlen(body), 5000);
	assert_int_equal(strspn(body, "c"), 4999);
	http_reply_free(reply);
	http_destroy(client);
}

/* The file has less than was promised: nothing must hang, or be made up. */
static void
upload_from_a_short_file(void **state)
{
	HttpClient *client = http_create();
	HttpRequest request = request_to("/count");
	HttpReply *reply;
	int fd = temporary_file("abc", 3);

	request.method = "PUT";
	request.content_type = "text/csv";
	request.body_fd = fd;
	request.body_len = 10;
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_LOST);
	assert_non_null(strstr(reply->error, "temporary file"));
	http_reply_free(reply);
	close(fd);
	http_destroy(client);
}

static void
reply_to_a_file(void **state)
{
	HttpClient *client = http_create();
	HttpRequest request = request_to("/large");
	int before = open_files();
	int fd = temporary_file("", 0);
	char last;
	HttpReply *reply;

	request.reply_fd = fd;
	request.max_reply = 20000000;
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_REPLIED);
	assert_null(reply->body);
	assert_int_equal(reply->body_len, 10000000);
	assert_int_equal(lseek(fd, 0, SEEK_END), 10000000);
	assert_int_equal(pread(fd, &last, 1, 9999999), 1);
	assert_int_equal(last, 'x');
	http_reply_free(reply);

	/* bounded, too */
	request.max_reply = 1000000;
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_TOO_LARGE);
	http_reply_free(reply);

	/* what isn't 200 is in memory */
	request = request_to("/headers");
	request.reply_fd = fd;
	reply = ask(client, request);
	assert_string_equal(reply->body, "abc");
	assert_string_equal(reply->locator, "MTAwMA");
	http_reply_free(reply);
	close(fd);
	http_destroy(client);
	assert_true(open_files() < before);
}

static void
reply_to_a_file_that_fails(void **state)
{
	HttpClient *client = http_create();
	HttpRequest request = request_to("/large");
	int fd = open("/dev/full", O_WRONLY);
	HttpReply *reply;

	assert_true(fd > 0);
	request.reply_fd = fd;
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_LOST);
	assert_non_null(strstr(reply->error, "temporary file"));
	http_reply_free(reply);
	close(fd);
	http_destroy(client);
}

/* Idle connections and an idle client must not wake anybody. */
static void
idle(void **state)
{
	HttpClient *client = http_create();
	struct pollfd wait;
	int i;

	http_reply_free(ask(client, request_to("/count-and-close")));
	for (i = 0; i < 5; i++)
		http_pump(client);
	wait.fd = http_wait_fd(client);
	wait.events = POLLIN;
	assert_int_equal(poll(&wait, 1, 300), 0);
	http_destroy(client);
}

/* Requests dropped in any state leave no descriptor behind. */
static void
dropped(void **state)
{
	HttpRequest request = {.method = "GET", .timeout = 3000};
	struct sockaddr_in address;
	int listener = listen_locally(&address);
	char url[100];
	int before;
	int round;

	/* A listener that accepts nothing: connections, but no end of ours here. */
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", ntohs(address.sin_port));
	request.url = url;
	http_destroy(http_create()); /* opens what libraries open once */
	before = open_files();
	for (round = 0; round < 20; round++)
	{
		HttpClient *client = http_create();
		int i;

		for (i = 0; i < 4; i++)
			assert_true(http_submit(client, &request));
		for (i = 0; i < round; i++)
		{
			http_pump(client);
			usleep(500);
		}
		http_destroy(client);
	}
	assert_true(open_files() <= before);
	close(listener);
	http_destroy(NULL);
	http_reply_free(NULL);
}

static volatile int resolver_blocks = -1;

/* Takes the place of the C library's, which libcurl calls in a thread. */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	sigset_t mask;

	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	resolver_blocks =
		sigismember(&mask, SIGTERM) && sigismember(&mask, SIGUSR1) && sigismember(&mask, SIGALRM);
	return EAI_NONAME;
}

/* Threads that libcurl makes must leave signals to the process. */
static void
resolver(void **state)
{
	HttpClient *client = http_create();
	HttpRequest request = request_to("/count");
	HttpReply *reply;
	sigset_t mask;

	request.url = "https://nowhere.invalid/";
	reply = ask(client, request);
	assert_int_equal(reply->outcome, HTTP_NOT_SENT);
	assert_string_equal(reply->error, "could not resolve the host name of nowhere.invalid");
	assert_int_equal(resolver_blocks, 1);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	assert_false(sigismember(&mask, SIGTERM));
	http_reply_free(reply);
	http_destroy(client);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers),
		cmocka_unit_test(what_is_sent),
		cmocka_unit_test(upload_from_a_file),
		cmocka_unit_test(upload_from_a_short_file),
		cmocka_unit_test(reply_to_a_file),
		cmocka_unit_test(reply_to_a_file_that_fails),
		cmocka_unit_test(failures),
		cmocka_unit_test(refused),
		cmocka_unit_test(not_sent),
		cmocka_unit_test(limits),
		cmocka_unit_test(concurrent),
		cmocka_unit_test(connections),
		cmocka_unit_test(idle),
		cmocka_unit_test(dropped),
		cmocka_unit_test(resolver),
	};

	return cmocka_run_group_tests(tests, start_server, NULL);
}
