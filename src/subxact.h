/*
 * subxact.h
 *		A step whose error is a value: it runs in a subtransaction.
 */
#ifndef SFSYNC_SUBXACT_H
#define SFSYNC_SUBXACT_H

typedef void (*SubxactStep)(void *arg);

/*
 * Run the step.  NULL if all is well; else its error, in the caller's memory
 * context, and all that it did is undone.  Who can't say what the error means
 * throws it on, by ReThrowError: a cancellation above all.
 */
extern ErrorData *subxact_try(SubxactStep step, void *arg);

#endif /* SFSYNC_SUBXACT_H */
