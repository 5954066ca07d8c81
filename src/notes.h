/*
 * notes.h
 *		The transaction's buffer of captured changes.
 *
 * For capture's own files; others use capture.h.
 */
#ifndef SFSYNC_NOTES_H
#define SFSYNC_NOTES_H

#include "datatype/timestamp.h"

/* A note in the buffer; key, old key and bitmap follow it. */
typedef struct Note
{
	TimestampTz at;
	int32 mapping;
	int32 key_len;
	int32 old_len;     /* -1: none */
	int32 changed_len; /* -1: none */
	char operation;    /* EVENT_... */
} Note;

/* What the buffer has to know of a mapping that it has deletes of. */
typedef struct NotedMapping
{
	int mapping;
	Oid source;
	int guard;     /* deletes that are not held; 0: any number */
	int64 deletes; /* noted, those of rolled back subtransactions among them */
} NotedMapping;

/* Note a change of the current (sub)transaction; old_key: NULL if it has none; changed_len < 0: no bitmap. */
extern void notes_add(int mapping, char operation, const char *key, const char *old_key, const uint8 *changed,
					  int changed_len);

/* A delete (EVENT_DELETE or EVENT_PARTITION_LEFT): old_key is the partition that left, or NULL. */
extern void notes_add_delete(const NotedMapping *mapping, char operation, const char *key,
							 const char *old_key);

/*
 * Every note so far, in the order of its making.  data is valid only until the
 * function adds a note; those are not visited.
 */
typedef void (*NoteFunction)(const Note *note, const char *data, void *arg);
extern void notes_each(NoteFunction function, void *arg);

/* Bytes that follow a note. */
extern int note_data_length(const Note *note);

/* The mapping's flag, of those that there are deletes of; false of others. */
extern bool notes_flagged(const bool *flags, int mapping);

#endif /* SFSYNC_NOTES_H */
