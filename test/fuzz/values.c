/* Values, ours and theirs: coerce.c, canonical.c, rest_form.c, reconcile.c */
#include "fuzz.h"

#include "canonical.h"
#include "coerce.h"
#include "reconcile.h"
#include "rest.h"
#include "rest_json.h"

static char *active[] = {"Gold", "Silver", "Blue; Light", "\xC3\x89t\xC3\xA9"};

static SfField
take_field(const uint8_t **data, size_t *size)
{
	uint8_t flags = take_byte(data, size);
	SfField field = {.name = "F__c", .label = "F", .type_name = "f"};

	field.type = (SfType) (take_byte(data, size) % (SF_OTHER + 1));
	field.createable = field.updateable = true;
	field.nillable = (flags & 1) != 0;
	field.defaulted_on_create = (flags & 2) != 0;
	field.restricted_picklist = (flags & 4) != 0;
	field.default_boolean = (flags & 8) != 0;
	field.length = flags & 16 ? 20 : 255;
	field.digits = flags & 32 ? 8 : 0;
	field.precision = flags & 64 ? 18 : 5;
	field.scale = flags & 128 ? 2 : 0;
	field.picklist = active;
	field.npicklist = lengthof(active);
	return field;
}

static int
characters(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += (*text & 0xC0) != 0x80;
	return n;
}

/* It is a number that Salesforce can hold in the field. */
static void
check_number(const FieldValue *value, const SfField *field)
{
	char *plain = rest_plain_number(value->text);
	const char *point;

	must(plain != NULL);
	must(strcmp(plain, value->text) == 0);
	point = strchr(plain, '.');
	must(point == NULL || (int) strlen(point + 1) <= field->scale);
}

static void
check_coerced(const FieldValue *value, const SfField *field)
{
	FieldValue canonical = *value;

	switch (value->kind)
	{
		case FV_NUMBER:
			check_number(value, field);
			break;
		case FV_STRING:
			must_be_text(value->text);
			must(value->text[0] != '\0');
			if (field->type == SF_STRING || field->type == SF_EMAIL || field->type == SF_PHONE)
				must(characters(value->text) <= field->length);
			break;
		default:
			break;
	}
	if (value->kind != FV_ABSENT)
		must_be_text(canonical_value(&canonical, field));
}

/* Elements of an array are divided by a byte of 1. */
static void
split(SourceValue *value)
{
	char *rest = pstrdup(value->text);
	char *element;

	value->elems = palloc0(sizeof(SourceValue) * (strlen(rest) + 1));
	while ((element = strsep(&rest, "\001")) != NULL)
		value->elems[value->nelems++] =
			(SourceValue){.kind = SRC_TEXT, .text = element, .isnull = strcmp(element, "NULL") == 0};
}

/* kind of the value, options, field, text */
static void
coerce(const uint8_t *data, size_t size)
{
	SourceValue value = {.kind = (SourceKind) (take_byte(&data, &size) % (SRC_ARRAY + 1))};
	uint8_t flags = take_byte(&data, &size);
	SfField field = take_field(&data, &size);
	CoerceOptions options = {(flags & 1) != 0, (flags & 2) != 0};
	FieldValue out;
	char *reason = NULL;

	value.isnull = (flags & 4) != 0;
	value.cut = (flags & 8) != 0;
	value.text = take_text(data, size);
	if (value.kind == SRC_ARRAY)
		split(&value);
	if (!coerce_value(&value, &field, &options, &out, &reason))
	{
		must(reason != NULL);
		must_be_line(reason);
		return;
	}
	check_coerced(&out, &field);
}

/* The canonical form of a canonical form is itself. */
static void
canonical(const uint8_t *data, size_t size)
{
	bool number = (take_byte(&data, &size) & 1) != 0;
	SfField field = take_field(&data, &size);
	FieldValue value = {.kind = number ? FV_NUMBER : FV_STRING, .text = take_text(data, size)};
	char *once = canonical_value(&value, &field);
	char *twice;

	/* it is only ever given UTF-8, but must survive anything */
	if (!once || !is_utf8(value.text))
		return;
	must(canonical_hash(once) != 0);
	value = (FieldValue){.kind = FV_STRING, .text = once};
	twice = canonical_value(&value, &field);
	must(twice != NULL);
	must(strcmp(once, twice) == 0);
}

/* Times, Ids, numbers and keys: a form that is taken is kept. */
static void
forms(const uint8_t *data, size_t size)
{
	char *text = take_text(data, size);
	char *id = rest_id18(text);
	char *number = rest_plain_number(text);
	char *key = rest_number_key(text);
	char *folded = rest_record_key(text, false);
	int64 at;

	must_be_id(id);
	must(!id || strcmp(rest_id18(id), id) == 0);
	must(!number || strcmp(rest_plain_number(number), number) == 0);
	must(!key || strcmp(rest_number_key(key), key) == 0);
	must(strcmp(rest_record_key(folded, false), folded) == 0);
	(void) rest_record_key(text, true);
	(void) rest_parse_time(text, &at);
	must_be_line(rest_clean_text(text, size));
}

static void
memory(const uint8_t *data, size_t size)
{
	Memory read = memory_read(data, (int) size);
	int len;
	uint8 *bytes = memory_write(&read, &len);

	must(read.n == 0 || (len == (int) size && memcmp(bytes, data, size) == 0));
	(void) memory_find(&read, 1);
	(void) memory_last_write(&read);
	memory_wrote(&read, 1, 2, 3);
	must(memory_find(&read, 1)->value == 2);
}

const Target value_targets[] = {
	{"coerce", coerce}, {"canonical", canonical}, {"forms", forms}, {"memory", memory}, {NULL, NULL}};
