/*
 * gzip.c
 *		Bodies of requests, made smaller.
 */
#include "compat.h"

#include <zlib.h>

#include "gzip.h"

#define GZIP_FORMAT (15 + 16) /* the largest window; 16 asks for gzip's header */
#define MEMORY_LEVEL 8

char *
gzip_compress(const char *data, size_t len, size_t *compressed_len)
{
	z_stream stream = {0};
	char *out;
	int result;

	if (len > PG_INT32_MAX || deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_FORMAT, MEMORY_LEVEL,
										   Z_DEFAULT_STRATEGY) != Z_OK)
		return NULL;
	out = palloc(len);
	stream.next_in = (unsigned char *) unconstify(char *, data);
	stream.avail_in = (unsigned int) len;
	stream.next_out = (unsigned char *) out;
	stream.avail_out = (unsigned int) len;
	result = deflate(&stream, Z_FINISH);
	*compressed_len = stream.total_out;
	(void) deflateEnd(&stream);
	if (result == Z_STREAM_END)
		return out;
	pfree(out);
	return NULL;
}
