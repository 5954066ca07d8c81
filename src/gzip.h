/*
 * gzip.h
 *		Bodies of requests, made smaller (reference, section 13).  Pure.
 */
#ifndef SFSYNC_GZIP_H
#define SFSYNC_GZIP_H

/* Bodies from this size on are worth the work. */
#define GZIP_FROM (64 * 1024)

/* The data in gzip's format, palloc'd; NULL if that would not be smaller, or failed. */
extern char *gzip_compress(const char *data, size_t len, size_t *compressed_len);

#endif /* SFSYNC_GZIP_H */
