/*
 * test_url.c
 *		Which URLs may be asked.
 */
#include "unit.h"

#include "url.h"

static void
refused_urls(void **state)
{
	static const char *const accepted[] = {
		"https://acme.my.salesforce.com",
		"HTTPS://A.b/",
		"https://a.b:8443/path",
		"https://[2001:db8::1]:443",
		"http://127.0.0.1",
		"http://127.1.2.255:80/x",
		"http://localhost",
		"http://LocalHost:1",
		"http://[::1]:8080/",
	};
	static const char *const refused[] = {
		"",
		"acme",
		"ftp://a",
		"https:/a",
		"https://",
		"https:///a",
		"https://a?b",
		"https://a#b",
		"https://a/?",
		"https://u@a",
		"https://u:p@a",
		"https://a:0",
		"https://a:",
		"https://a:65536",
		"https://a:1:2",
		"https://a b",
		"https://a\\b",
		"https://a\tb",
		"https://a..b",
		"https://.a",
		"https://[::1]x",
		"https://[::1",
		"https://a%2eb",
		"https://\xc3\xa4",
		"http://a",
		"http://127.1",
		"http://127.0.0.01",
		"http://127.0.0.256",
		"http://127.0.0.1.",
		"http://127.0.0.1.evil",
		"http://127.0.0.1@evil",
		"http://localhost.evil",
		"http://[::2]",
		"http://0x7f.0.0.1",
		"http://2130706433",
	};
	int i;

	for (i = 0; i < lengthof(accepted); i++)
	{
		if (url_refused(accepted[i]) != NULL)
			fail_msg("%s: %s", accepted[i], url_refused(accepted[i]));
	}
	for (i = 0; i < lengthof(refused); i++)
	{
		if (url_refused(refused[i]) == NULL)
			fail_msg("%s was accepted", refused[i]);
	}
}

/* No more than what url_refused lets be asked without TLS: a proxy is told of all other names. */
static void
loopback(void **state)
{
	static const char *const here[] = {"http://localhost", "https://LOCALHOST:8443/x?y",
									   "http://127.0.0.1:80", "http://127.1.2.3/", "https://[::1]:443/x"};
	static const char *const elsewhere[] = {"https://127.0.0.1.example.com/",
											"https://127.example.com",
											"https://localhost.example.com",
											"https://acme.my.salesforce.com",
											"https://[::2]/",
											"https://[::1",
											"ftp://localhost/",
											"https://"};

	for (int i = 0; i < lengthof(here); i++)
		if (!url_is_loopback(here[i]))
			fail_msg("%s", here[i]);
	for (int i = 0; i < lengthof(elsewhere); i++)
		if (url_is_loopback(elsewhere[i]))
			fail_msg("%s", elsewhere[i]);
}

static void
slashes(void **state)
{
	assert_string_equal(url_without_slashes("https://acme.my.salesforce.com//"),
						"https://acme.my.salesforce.com");
	assert_string_equal(url_without_slashes("https://x/y"), "https://x/y");
	assert_string_equal(url_without_slashes("///"), "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused_urls),
		cmocka_unit_test(loopback),
		cmocka_unit_test(slashes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
