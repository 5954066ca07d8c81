/*
 * mapping_load.h
 *		Reading a mapping anew: for mapping.c, which keeps it.
 */
#ifndef SFSYNC_MAPPING_LOAD_H
#define SFSYNC_MAPPING_LOAD_H

#include "mapping.h"

/*
 * The mapping as it is now, in a memory context of its own (mapping->context);
 * NULL if there is none.  Why it can't be used, if so, is in mapping->broken.  It
 * has no serial yet.
 */
extern Mapping *mapping_load(int id);

#endif /* SFSYNC_MAPPING_LOAD_H */
