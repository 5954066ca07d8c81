/*
 * tooling.h
 *		Custom fields by the Tooling API, and the permissions that make them
 *		visible (reference, section 11): requests and replies.  Pure.
 */
#ifndef SFSYNC_TOOLING_H
#define SFSYNC_TOOLING_H

#include "rest.h"

#define TOOLING_PERMISSION_SET "sfsync"

typedef enum NewFieldType
{
	NEW_FIELD_TEXT,
	NEW_FIELD_LONG_TEXT,
	NEW_FIELD_NUMBER,
	NEW_FIELD_CHECKBOX,
	NEW_FIELD_DATE,
	NEW_FIELD_DATETIME,
	NEW_FIELD_TIME,
	NEW_FIELD_PICKLIST
} NewFieldType;

typedef struct NewField
{
	NewFieldType type;
	int length;    /* texts */
	int precision; /* numbers */
	int scale;
	char **labels; /* picklists; UTF-8 */
	int nlabels;
} NewField;

/*
 * The API name of a column's field: loyalty_tier becomes Loyalty_Tier__c.
 * palloc'd; NULL where no valid name would be found by the column's name again.
 */
extern char *tooling_field_name(const char *column);

/* Its label: Loyalty Tier. */
extern char *tooling_field_label(const char *column);

/* Text of up to so many characters; 0: any length. */
extern NewField tooling_text(int length);

/* Numbers of so many digits; text where a number of Salesforce would lose some. */
extern NewField tooling_number(int precision, int scale);

/* These values and others; text where Salesforce takes no such values. */
extern NewField tooling_picklist(char **labels, int nlabels);

/*
 * The steps (section 11): make the field; find the permission set, or make it;
 * grant the field to it; assign it to the user.
 */
extern RestCall *tooling_create_field(const char *api_version, const char *object, const char *name,
									  const char *label, const NewField *field);
extern RestCall *tooling_find_permission_set(const char *api_version);
extern RestCall *tooling_create_permission_set(const char *api_version);
extern RestCall *tooling_grant_field(const char *api_version, const char *permission_set, const char *object,
									 const char *name);
extern RestCall *tooling_assign(const char *api_version, const char *permission_set, const char *user);

/* The Id in the reply of the query (NULL if nothing was found), or of a create. */
extern bool tooling_parse_found(const char *body, size_t len, char **id, char **error);
extern bool tooling_parse_created(const char *body, size_t len, char **id, char **error);

#endif /* SFSYNC_TOOLING_H */
