/*
 * names.c
 *		Which names mean the same, and which are near.  Pure.
 *
 * Names are normalised once and looked up in a sorted index, so that a wide
 * table against a wide object takes no time worth noting.
 */
#include "compat.h"

#include "names.h"

#define NEAR_LENGTH 255 /* longer names have no nearest match */

/* ------------------------------------------------------------------------
 * Forms of a name
 * ------------------------------------------------------------------------
 */

/* Lower case of ASCII, in any locale; underscores dropped unless kept. */
static char *
fold(const char *name, size_t len, bool keep_underscores)
{
	char *folded = palloc(len + 1);
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
	{
		if (name[i] != '_' || keep_underscores)
			folded[n++] = (char) pg_ascii_tolower((unsigned char) name[i]);
	}
	folded[n] = '\0';
	return folded;
}

static bool
ends_in_custom_suffix(const char *name, size_t len)
{
	return len > 3 && name[len - 3] == '_' && name[len - 2] == '_' &&
		   (name[len - 1] == 'c' || name[len - 1] == 'C');
}

char *
names_fold_reference(const char *name)
{
	size_t len = strlen(name);
	char *key;

	if (ends_in_custom_suffix(name, len))
		len -= 3;
	key = fold(name, len, false);
	len = strlen(key);
	if (len > 2 && strcmp(key + len - 2, "id") == 0)
		key[len - 2] = '\0';
	return key;
}

bool
names_alike(const char *column, const char *field, NameKind *kind)
{
	char *wanted = fold(column, strlen(column), false);
	size_t len = strlen(field);
	const char *separator = strstr(field, "__");

	*kind = NAME_LOOSE;
	if (strcmp(fold(field, len, false), wanted) == 0)
		return true;
	*kind = NAME_CUSTOM;
	if (!ends_in_custom_suffix(field, len))
		return false;
	len -= 3;
	if (strcmp(fold(field, len, false), wanted) == 0)
		return true;
	return separator > field && separator + 2 < field + len &&
		   strcmp(fold(separator + 2, field + len - separator - 2, false), wanted) == 0;
}

/* ------------------------------------------------------------------------
 * The index of an object's fields
 * ------------------------------------------------------------------------
 */

static int
compare_names(const void *a, const void *b)
{
	const FieldName *x = a;
	const FieldName *y = b;
	int order;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	order = strcmp(x->key, y->key);
	return order != 0 ? order : strcmp(x->name, y->name);
}

static void
add_name(NameIndex *index, NameKind kind, int field, const char *name, size_t len)
{
	FieldName *entry = &index->entries[index->n++];

	entry->kind = kind;
	entry->field = field;
	entry->name = index->object->fields[field].name;
	entry->key = fold(name, len, kind == NAME_EXACT);
}

/* Foo__c is found as foo; of a package, ns__Foo__c, as foo and as ns_foo. */
static void
add_custom_names(NameIndex *index, int field)
{
	const char *name = index->object->fields[field].name;
	size_t len = strlen(name);
	const char *separator;

	if (!index->object->fields[field].custom || !ends_in_custom_suffix(name, len))
		return;
	len -= 3;
	add_name(index, NAME_CUSTOM, field, name, len);
	separator = strstr(name, "__");
	if (separator != NULL && separator > name && separator + 2 < name + len)
		add_name(index, NAME_CUSTOM, field, separator + 2, len - (size_t) (separator + 2 - name));
}

NameIndex
names_index(const SfObject *object)
{
	NameIndex index = {object, 0, palloc(sizeof(FieldName) * (4 * object->nfields + 1))};

	for (int i = 0; i < object->nfields; i++)
	{
		const char *name = object->fields[i].name;

		add_name(&index, NAME_EXACT, i, name, strlen(name));
		add_name(&index, NAME_LOOSE, i, name, strlen(name));
		add_custom_names(&index, i);
	}
	qsort(index.entries, index.n, sizeof(FieldName), compare_names);
	return index;
}

const FieldName *
names_find(const NameIndex *index, NameKind kind, const char *name, int *n)
{
	FieldName wanted = {kind, fold(name, strlen(name), kind == NAME_EXACT), 0, ""};
	int low = 0;
	int high = index->n;
	int end;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (compare_names(&index->entries[middle], &wanted) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < index->n && *wanted.key != '\0'; end++)
	{
		if (index->entries[end].kind != kind || strcmp(index->entries[end].key, wanted.key) != 0)
			break;
	}
	*n = end - low;
	pfree(wanted.key);
	return &index->entries[low];
}

int
names_find_field(const NameIndex *index, const char *name)
{
	int n;
	const FieldName *found = names_find(index, NAME_EXACT, name, &n);

	return n > 0 ? found->field : -1;
}

/* ------------------------------------------------------------------------
 * Nearest match
 * ------------------------------------------------------------------------
 */

/* Edit distance (insert, delete, replace) of two short texts. */
static int
distance(const char *a, const char *b)
{
	int row[NEAR_LENGTH + 1];
	int blen = (int) strlen(b);

	for (int j = 0; j <= blen; j++)
		row[j] = j;
	for (int i = 1; a[i - 1] != '\0'; i++)
	{
		int diagonal = row[0];

		row[0] = i;
		for (int j = 1; j <= blen; j++)
		{
			int replace = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			row[j] = Min(replace, Min(row[j], row[j - 1]) + 1);
		}
	}
	return row[blen];
}

/* Case, underscores and __c are what people leave out: they don't count. */
static char *
fold_for_nearest(const char *name)
{
	size_t len = strlen(name);

	if (ends_in_custom_suffix(name, len))
		len -= 3;
	return fold(name, len, false);
}

char *
names_list(const char *const *names, int n)
{
	size_t size = 1;
	char *list;
	char *end;

	for (int i = 0; i < n; i++)
		size += strlen(names[i]) + 2;
	end = list = palloc0(size);
	for (int i = 0; i < n; i++)
		end += sprintf(end, "%s%s", i > 0 ? ", " : "", names[i]);
	return list;
}

const char *
nearest_match(const char *name, const char *const *candidates, int n)
{
	char *wanted = fold_for_nearest(name);
	int len = (int) strlen(wanted);
	int best = Min((len + 2) / 4, 3) + 1;
	const char *nearest = NULL;

	for (int i = 0; i < n && len <= NEAR_LENGTH; i++)
	{
		char *candidate = fold_for_nearest(candidates[i]);
		int length_difference = abs((int) strlen(candidate) - len);

		if (strlen(candidate) <= NEAR_LENGTH && length_difference < best)
		{
			int d = distance(wanted, candidate);

			if (d < best)
			{
				best = d;
				nearest = candidates[i];
			}
		}
		pfree(candidate);
	}
	pfree(wanted);
	return nearest;
}

const char *
nearest_field(const SfObject *object, const char *name)
{
	const char **names = palloc(sizeof(char *) * Max(object->nfields, 1));
	const char *nearest;

	for (int i = 0; i < object->nfields; i++)
		names[i] = object->fields[i].name;
	nearest = nearest_match(name, names, object->nfields);
	pfree(names);
	return nearest;
}
