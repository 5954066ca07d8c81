/*
 * poison.h
 *		Who is to blame when a write fails as a whole (5xx, time-outs, dropped
 *		connections): the server, or one of the records that it carried?  Pure.
 *
 * A server that is down fails whatever it is sent; a record that makes it
 * stumble fails alone, while others pass.  So a request that failed is halved,
 * and its halves go after everything else.  When several fail in a row, nothing
 * is halved any more: single records are tried in turn until one passes.  A
 * record that fails alone is blamed only if another write passed that was sent
 * since the first request with this record failed.  From then on each failure
 * of it alone counts as an attempt, provided that the server did something well
 * since the one before, and nothing else failed.  In an outage nothing passes,
 * so nobody is blamed.
 */
#ifndef SFSYNC_POISON_H
#define SFSYNC_POISON_H

/* A record that failed alone. */
typedef struct Suspect
{
	int mapping;
	char *key;
	int64 failed;   /* number of the failure that counted last */
	bool confirmed; /* others passed meanwhile */
} Suspect;

/* What is known of a connection; all zero at the start. */
typedef struct Poison
{
	int64 failures;     /* of writes, so far */
	int64 trouble;      /* number of the last one that no suspect is blamed for */
	int run;            /* since a write passed */
	int64 write_passed; /* a write that was sent after so many failures passed */
	int64 any_passed;   /* the same, of any request */
	Suspect *suspects;
	int nsuspects;
} Poison;

typedef enum PoisonVerdict
{
	POISON_SERVER, /* the server fails */
	POISON_SPLIT,  /* it seems so; but send half as many of these records together */
	POISON_RECORD, /* the record fails: an attempt of it counts */
	POISON_UNSURE  /* the record has failed before, but the server may be down now: no attempt counts */
} PoisonVerdict;

/* To be kept with a request when it is sent. */
extern int64 poison_mark(const Poison *poison);

/* A request came back well; of a write, its records are no suspects any more. */
extern void poison_passed(Poison *poison, int64 mark, bool write);
extern void poison_forget(Poison *poison, int mapping, const char *key);

/*
 * A write of so many records failed as a whole.  If it was one: its key, and
 * the mark after the first failure of a request with it (0: this is the first).
 */
extern PoisonVerdict poison_failed(Poison *poison, int mapping, const char *key, int64 since, int records);

/* Another request failed as a whole. */
extern void poison_other_failed(Poison *poison);

/* Did the record fail alone?  Then it is sent alone. */
extern bool poison_suspected(const Poison *poison, int mapping, const char *key);

/* How many records may go into the next request, if so many could? */
extern int poison_batch(const Poison *poison, int batch_size);

/* Is any reply wanted that tells whether the server is well? */
extern bool poison_wants_control(const Poison *poison);

/*
 * Were so many records of a mapping refused, one after the other and none
 * accepted in between, that the mapping is to blame?  *in_a_row counts them;
 * refused and records are those of a reply.
 */
extern bool poison_blames_mapping(int *in_a_row, int refused, int records);

#endif /* SFSYNC_POISON_H */
