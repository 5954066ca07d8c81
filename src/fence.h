/*
 * fence.h
 *		A server is bound to one database: a restored dump, a copy or a
 *		template finds itself fenced and sends nothing (design, section 9).
 */
#ifndef SFSYNC_FENCE_H
#define SFSYNC_FENCE_H

/* Why nothing may be sent to the server from here; NULL if it may.  palloc'd. */
extern char *fence_reason(const char *server);

/* Bind the server to this database unless it is bound already. */
extern void fence_bind(const char *server);

#endif /* SFSYNC_FENCE_H */
