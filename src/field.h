/*
 * field.h
 *		What both sides of a mapping are made of: fields of a Salesforce object
 *		as its describe tells them, values of PostgreSQL columns in canonical
 *		text, and values as they are sent.  Types only; pure.
 */
#ifndef SFSYNC_FIELD_H
#define SFSYNC_FIELD_H

/* Field types of the describe (reference, section 3.4). */
typedef enum SfType
{
	SF_ID,
	SF_REFERENCE,
	SF_STRING,
	SF_TEXTAREA,
	SF_PHONE,
	SF_URL,
	SF_EMAIL,
	SF_COMBOBOX,
	SF_ENCRYPTED,
	SF_PICKLIST,
	SF_MULTIPICKLIST,
	SF_BOOLEAN,
	SF_INT,
	SF_LONG,
	SF_DOUBLE,
	SF_CURRENCY,
	SF_PERCENT,
	SF_DATE,
	SF_DATETIME,
	SF_TIME,
	SF_BASE64,
	SF_OTHER /* address, location, anyType, ...: never written */
} SfType;

typedef struct SfField
{
	char *name; /* API name, canonical case */
	char *label;
	char *type_name; /* as the describe spells it */
	SfType type;
	int length;    /* characters, string-like types */
	int digits;    /* int: digits at most */
	int precision; /* numbers: digits in all */
	int scale;     /* numbers: digits after the point */
	bool createable;
	bool updateable;
	bool nillable;
	bool defaulted_on_create;
	bool default_boolean; /* a checkbox's default */
	bool calculated;
	bool custom;
	bool external_id;
	bool id_lookup;
	bool unique;
	bool case_sensitive;
	bool restricted_picklist;
	bool html_formatted;
	char **picklist; /* active values */
	int npicklist;
	char *relationship_name; /* NULL unless a reference */
	char **reference_to;
	int nreference_to;
} SfField;

typedef struct SfObject
{
	char *name;
	char *label;
	char *key_prefix; /* first three characters of its Ids; may be NULL */
	bool createable;
	bool updateable;
	bool deletable;
	bool queryable;
	SfField *fields;
	int nfields;
	char *history_object; /* holds the history of its fields; NULL if none is kept */
	char *history_parent; /* its field that names the record */
} SfObject;

/*
 * A column's value, independent of locale and session settings.  Text is
 * UTF-8 and zero-terminated.
 */
typedef enum SourceKind
{
	SRC_BOOL,        /* "true" | "false" */
	SRC_INTEGER,     /* digits with an optional sign */
	SRC_NUMERIC,     /* numeric_out: digits, or NaN, Infinity, -Infinity; money */
	SRC_FLOAT,       /* shortest round-trip, may have an exponent; NaN,
								 * Infinity, -Infinity */
	SRC_TEXT,        /* text kinds, enum, uuid, and whatever has no kind
								 * of its own */
	SRC_DATE,        /* YYYY-MM-DD (year of four or more digits), " BC"
								 * appended where so; infinity, -infinity */
	SRC_TIMESTAMPTZ, /* the instant in UTC, YYYY-MM-DDTHH:MM:SS[.ffffff]Z
								 * (" BC" appended where so); infinity, -infinity */
	SRC_TIME,        /* HH:MM:SS[.ffffff] */
	SRC_BYTEA,       /* base64, no line breaks */
	SRC_JSON,        /* JSON text */
	SRC_ARRAY        /* elements in elems, of all dimensions; text is JSON */
} SourceKind;

typedef struct SourceValue
{
	bool isnull;
	SourceKind kind;
	char *text;
	int nelems;
	struct SourceValue *elems;
	bool cut;             /* text is only the front of a value that no field takes whole */
	const char *unusable; /* why there is no text (it is empty); else NULL */
	char *key;            /* of columns that point to a parent: the text as it is in keys */
} SourceValue;

/* A value as it is sent. */
typedef enum FieldValueKind
{
	FV_ABSENT, /* not sent: the field keeps what it has */
	FV_NULL,   /* clears the field */
	FV_BOOL,
	FV_NUMBER, /* text holds a JSON number, digit for digit */
	FV_LOOKUP, /* text holds the parent's external ID */
	FV_STRING
} FieldValueKind;

/* A lookup by the parent's external ID (reference, section 8). */
typedef struct FieldLookup
{
	char *relationship; /* name of the relation: Account, Parent__r */
	char *external_id;  /* field of the parent that carries the key */
	bool key_is_number;
	char *parent_object; /* named where the relation has several; else NULL */
	int parent_mapping;
} FieldLookup;

typedef struct FieldValue
{
	FieldValueKind kind;
	bool boolean;
	char *text;
	const FieldLookup *lookup; /* FV_LOOKUP */
} FieldValue;

#endif /* SFSYNC_FIELD_H */
