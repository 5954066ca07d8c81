/*
 * url.c
 *		Which URLs may be asked.  Pure.
 */
#include "compat.h"

#include "url.h"

/* Exactly four decimal numbers, the first 127: no spelling that resolvers stretch. */
static bool
is_loopback_v4(const char *host, size_t len)
{
	int octets = 0;
	size_t i = 0;

	while (i < len)
	{
		int value = 0;
		size_t start = i;

		while (i < len && host[i] >= '0' && host[i] <= '9' && i - start < 3)
			value = value * 10 + host[i++] - '0';
		if (i == start || value > 255 || (host[start] == '0' && i - start > 1) ||
			(octets == 0 && value != 127))
			return false;
		octets++;
		if (i == len)
			break;
		if (host[i] != '.' || octets == 4)
			return false;
		i++;
		if (i == len)
			return false;
	}
	return octets == 4;
}

static bool
is_loopback_host(const char *host, size_t len)
{
	return (len == 9 && pg_strncasecmp(host, "localhost", 9) == 0) ||
		   (len == 5 && strncmp(host, "[::1]", 5) == 0) || is_loopback_v4(host, len);
}

/* A name, an IPv4 address, or an IPv6 address in brackets. */
static bool
is_host(const char *host, size_t len)
{
	bool v6 = len > 2 && host[0] == '[' && host[len - 1] == ']';
	size_t i;

	if (len == 0 || len > 255)
		return false;
	if (v6)
		return strspn(host + 1, "0123456789abcdefABCDEF:.") == len - 2;
	for (i = 0; i < len; i++)
	{
		if (!((host[i] >= 'a' && host[i] <= 'z') || (host[i] >= 'A' && host[i] <= 'Z') ||
			  (host[i] >= '0' && host[i] <= '9') || host[i] == '-' || host[i] == '_' ||
			  (host[i] == '.' && i > 0 && host[i - 1] != '.')))
			return false;
	}
	return true;
}

static bool
is_port(const char *port, size_t len)
{
	int value = 0;
	size_t i;

	if (len == 0 || len > 5)
		return false;
	for (i = 0; i < len; i++)
	{
		if (port[i] < '0' || port[i] > '9')
			return false;
		value = value * 10 + port[i] - '0';
	}
	return value > 0 && value <= 65535;
}

/* Behind the scheme; NULL if that is neither http nor https. */
static const char *
authority_of(const char *url, bool *https)
{
	*https = pg_strncasecmp(url, "https://", 8) == 0;
	if (*https)
		return url + 8;
	return pg_strncasecmp(url, "http://", 7) == 0 ? url + 7 : NULL;
}

/* Of a name or an address, which may stand in brackets; what follows may be a port. */
static size_t
host_length(const char *host)
{
	return host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#");
}

const char *
url_refused(const char *url)
{
	bool https;
	const char *host = authority_of(url, &https);
	const char *c;
	size_t authority;
	size_t host_len;

	if (host == NULL)
		return "it does not begin with https://";
	for (c = url; *c != '\0'; c++)
	{
		if (*c <= 0x20 || *c >= 0x7f || *c == '\\')
			return "it has a character that is not allowed in a URL";
	}
	authority = strcspn(host, "/?#");
	if (memchr(host, '@', authority) != NULL)
		return "it has a user name";
	if (strpbrk(host, "?#") != NULL)
		return "it has a query or a fragment";
	host_len = host_length(host);
	if (host_len > authority || !is_host(host, host_len))
		return "it has no valid host name";
	if (host_len < authority &&
		(host[host_len] != ':' || !is_port(host + host_len + 1, authority - host_len - 1)))
		return "it has no valid port";
	if (!https && !is_loopback_host(host, host_len))
		return "http is only for loopback addresses";
	return NULL;
}

bool
url_is_loopback(const char *url)
{
	bool https;
	const char *host = authority_of(url, &https);

	return host != NULL && is_loopback_host(host, Min(host_length(host), strlen(host)));
}

char *
url_without_slashes(const char *url)
{
	size_t len = strlen(url);

	while (len > 0 && url[len - 1] == '/')
		len--;
	return pnstrdup(url, len);
}
