/*
 * follow.h
 *		What DDL means for mappings; mostly an event trigger.
 */
#ifndef SFSYNC_FOLLOW_H
#define SFSYNC_FOLLOW_H

/* Once, in _PG_init: REASSIGN OWNED and roles that are dropped are seen by hooks. */
extern void follow_init(void);

#endif /* SFSYNC_FOLLOW_H */
