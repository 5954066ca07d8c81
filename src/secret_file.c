/*
 * secret_file.c
 *		Files that hold secrets.
 */
#include "compat.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "secret_file.h"

#define SECRET_FILE_MAX (64 * 1024)

static const char file_hint[] = "Make it readable for the user who runs the server, and for nobody else.";

/*
 * Nobody but us may know what the file holds.  As with libpq's keys, root may
 * let a group of ours read a file of its own.
 */
static void
check_stat(const char *path, const struct stat *st)
{
	mode_t forbidden = st->st_uid == 0 ? (S_IWGRP | S_IXGRP | S_IRWXO) : (S_IRWXG | S_IRWXO);

	if (!S_ISREG(st->st_mode))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a regular file", path),
						errdetail("A secret is read from a file of its own."),
						errhint("Name the file that holds it.")));
	if (st->st_uid != geteuid() && st->st_uid != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("file \"%s\" belongs to another user", path),
			 errdetail("A file that holds a secret must belong to the user who runs the server, or to root."),
			 errhint("Use chown.")));
	if (st->st_mode & forbidden)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("file \"%s\" can be read or changed by others", path),
			 errdetail(
				 "A file that holds a secret must have permissions 0600 or less, or 0640 or less if root owns it."),
			 errhint("Use: chmod 600 %s", path)));
}

void
secret_file_check(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		check_stat(path, &st);
}

static char *
read_all(int fd, const char *path, size_t size)
{
	char *data = palloc(size + 1);
	size_t len = 0;

	while (len < size)
	{
		ssize_t n = read(fd, data + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			ereport(ERROR,
					(errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path),
					 errdetail("The server process reads it when it logs in."), errhint("%s", file_hint)));
		if (n == 0)
			break;
		len += n;
	}
	data[len] = '\0';
	while (len > 0 && (data[len - 1] == '\n' || data[len - 1] == '\r'))
		data[--len] = '\0';
	if (len == 0 || memchr(data, '\0', len) != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("file \"%s\" holds no secret", path),
						errdetail("The file must hold text and nothing else."),
						errhint("Write the secret into it, in a line of its own.")));
	return data;
}

char *
secret_file_read(const char *path)
{
	struct stat st;
	char *data;
	int fd;

	/* Not to be held up by a FIFO: what kind it is shows once it is open. */
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", path),
						errdetail("The server process reads it when it logs in."), errhint("%s", file_hint)));
	if (fstat(fd, &st) < 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not stat file \"%s\": %m", path),
						errdetail("The server process reads it when it logs in."), errhint("%s", file_hint)));
	check_stat(path, &st);
	if (st.st_size > SECRET_FILE_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("file \"%s\" is too large", path),
						errdetail("A secret has at most %d bytes.", SECRET_FILE_MAX),
						errhint("Name the file that holds the secret alone.")));
	data = read_all(fd, path, st.st_size);
	CloseTransientFile(fd);
	return data;
}
