/*
 * launcher.h
 *		One process a cluster that keeps a sync worker in each database that
 *		has the extension, and the hook that keeps it out of a database for
 *		statements that can't bear one.
 */
#ifndef SFSYNC_LAUNCHER_H
#define SFSYNC_LAUNCHER_H

/* In _PG_init under shared_preload_libraries. */
extern void launcher_install(void);

#endif /* SFSYNC_LAUNCHER_H */
