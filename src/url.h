/*
 * url.h
 *		Which URLs may be asked: those of users' options, and those that
 *		Salesforce names.  Pure.
 */
#ifndef SFSYNC_URL_H
#define SFSYNC_URL_H

/*
 * May this URL be asked?  https with a host; http only for loopback addresses
 * (127.0.0.0/8, ::1, localhost); no user, query or fragment.  NULL if so, else
 * the reason (a constant).
 */
extern const char *url_refused(const char *url);

/* Is its host one of those? */
extern bool url_is_loopback(const char *url);

/* A copy without slashes at the end, palloc'd. */
extern char *url_without_slashes(const char *url);

#endif /* SFSYNC_URL_H */
