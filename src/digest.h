/*
 * digest.h
 *		Is a mapping that was read again another?
 */
#ifndef SFSYNC_DIGEST_H
#define SFSYNC_DIGEST_H

#include "mapping.h"

/* Of all that decides what is read and sent; describe: the object's metadata as text, or NULL. */
extern uint64 digest_of(const Mapping *mapping, const char *describe);

#endif /* SFSYNC_DIGEST_H */
