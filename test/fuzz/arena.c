/*
 * arena.c
 *		palloc and its relatives, in place of libpgcommon's: outside of the
 *		server nothing frees what a memory context would, and a fuzzer runs for
 *		long.  What is left then is json-c's and libc's, and a leak.
 */
#include "fuzz.h"

#include <sanitizer/asan_interface.h>

/* As much as the server's palloc gives; more is an error there. */
#define MOST ((size_t) 0x3fffffff)

/* It is poisoned, so that what writes in front of its memory is seen. */
typedef struct Block
{
	struct Block *prev;
	struct Block *next;
	size_t size;
	void *unused;
} Block;

static Block head = {&head, &head, 0, NULL};

static void *
get(size_t size)
{
	Block *block;

	must(size <= MOST);
	block = malloc(sizeof(Block) + size);
	must(block != NULL);
	block->size = size;
	block->prev = &head;
	block->next = head.next;
	if (head.next != &head)
	{
		ASAN_UNPOISON_MEMORY_REGION(head.next, sizeof(Block));
		head.next->prev = block;
		ASAN_POISON_MEMORY_REGION(head.next, sizeof(Block));
	}
	else
		head.prev = block;
	head.next = block;
	ASAN_POISON_MEMORY_REGION(block, sizeof(Block));
	return block + 1;
}

static Block *
opened(void *pointer)
{
	Block *block = (Block *) pointer - 1;

	ASAN_UNPOISON_MEMORY_REGION(block, sizeof(Block));
	return block;
}

static void
put_back(void *pointer)
{
	Block *block = opened(pointer);
	Block *neighbours[] = {block->prev, block->next};

	for (int i = 0; i < 2; i++)
		if (neighbours[i] != &head)
			ASAN_UNPOISON_MEMORY_REGION(neighbours[i], sizeof(Block));
	block->prev->next = block->next;
	block->next->prev = block->prev;
	for (int i = 0; i < 2; i++)
		if (neighbours[i] != &head)
			ASAN_POISON_MEMORY_REGION(neighbours[i], sizeof(Block));
	free(block);
}

void
arena_reset(void)
{
	while (head.next != &head)
		put_back(head.next + 1);
}

void *
palloc(Size size)
{
	return get(size);
}

void *
palloc0(Size size)
{
	return memset(get(size), 0, size);
}

void *
palloc_extended(Size size, int flags)
{
	void *memory = get(size);

	return flags & MCXT_ALLOC_ZERO ? memset(memory, 0, size) : memory;
}

void
pfree(void *pointer)
{
	put_back(pointer);
}

void *
repalloc(void *pointer, Size size)
{
	Block *block = opened(pointer);
	size_t old = block->size;
	void *memory;

	ASAN_POISON_MEMORY_REGION(block, sizeof(Block));
	memory = get(size);
	memcpy(memory, pointer, Min(old, size));
	put_back(pointer);
	return memory;
}

char *
pnstrdup(const char *text, Size size)
{
	size_t len = strnlen(text, size);
	char *copy = get(len + 1);

	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

char *
pstrdup(const char *text)
{
	return pnstrdup(text, strlen(text));
}

/* libpgcommon's own uses, from here on. */

void *
pg_malloc(size_t size)
{
	return get(size);
}

void *
pg_malloc0(size_t size)
{
	return palloc0(size);
}

void *
pg_malloc_extended(size_t size, int flags)
{
	return palloc_extended(size, flags);
}

void *
pg_realloc(void *pointer, size_t size)
{
	return pointer ? repalloc(pointer, size) : get(size);
}

char *
pg_strdup(const char *text)
{
	return pstrdup(text);
}

void
pg_free(void *pointer)
{
	if (pointer)
		put_back(pointer);
}
