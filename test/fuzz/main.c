/*
 * main.c
 *		libFuzzer's entry: FUZZ in the environment names the driver.  Called by
 *		hand with FUZZ=list it prints the names.
 */
#include "fuzz.h"

#include "mb/pg_wchar.h"

static const Target *const all[] = {reply_targets, read_targets, bulk_targets, value_targets, header_targets};
static Driver chosen;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *name = getenv("FUZZ");

	for (size_t i = 0; name && i < lengthof(all); i++)
	{
		for (const Target *target = all[i]; target->name; target++)
		{
			if (strcmp(name, "list") == 0)
				puts(target->name);
			else if (strcmp(name, target->name) == 0)
				chosen = target->driver;
		}
	}
	if (!chosen)
		exit(name && strcmp(name, "list") == 0 ? 0 : 2);
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	chosen(data, size);
	arena_reset();
	return 0;
}

void
fuzz_failed(const char *condition, const char *file, int line)
{
	fprintf(stderr, "%s:%d: this must hold: %s\n", file, line, condition);
	abort();
}

uint8_t
take_byte(const uint8_t **data, size_t *size)
{
	if (*size == 0)
		return 0;
	(*size)--;
	return *(*data)++;
}

char *
take_text(const uint8_t *data, size_t size)
{
	char *text = palloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

bool
is_utf8(const char *text)
{
	return pg_encoding_verifymbstr(PG_UTF8, text, (int) strlen(text)) == (int) strlen(text);
}

void
must_be_text(const char *text)
{
	must(!text || is_utf8(text));
}

void
must_be_line(const char *text)
{
	must_be_text(text);
	for (; text && *text; text++)
		must((unsigned char) *text >= 0x20 && *text != 0x7F);
}

void
must_be_id(const char *id)
{
	if (id)
		must(strlen(id) == 18 &&
			 strspn(id, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == 18);
}
