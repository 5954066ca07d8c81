/*
 * secret_file.h
 *		Files that hold secrets: who else may look into them, and what they hold.
 */
#ifndef SFSYNC_SECRET_FILE_H
#define SFSYNC_SECRET_FILE_H

/* An error if the file is there and not fit to hold a secret: others may read or change it. */
extern void secret_file_check(const char *path);

/*
 * The secret in a file, without the line ends behind it.  palloc'd; throws when
 * the file can't be read, others may read it, or it holds none.
 */
extern char *secret_file_read(const char *path);

#endif /* SFSYNC_SECRET_FILE_H */
