/*
 * rest_json.h
 *		JSON of replies, and text of Salesforce for logs and views: for the files
 *		that take replies apart.  Pure.
 *
 * Values are in json-c's memory until their root is put; what is palloc'd says so.
 */
#ifndef SFSYNC_REST_JSON_H
#define SFSYNC_REST_JSON_H

struct json_object;

/*
 * The whole text as one JSON value of bounded depth, valid UTF-8, nothing
 * behind it; NULL if it is anything else.  text may be NULL where len is 0.  Free with json_object_put.
 */
extern struct json_object *rest_parse_json(const char *text, size_t len);

/* A member; NULL when it is absent or null, or the parent is no object. */
extern struct json_object *rest_member(struct json_object *parent, const char *key);

/* A string without U+0000, in json-c's memory; NULL if the value is none. */
extern const char *rest_plain_string(struct json_object *value);

/* The same, palloc'd. */
extern char *rest_string_copy(struct json_object *value);

/* A value printed without white space, palloc'd. */
extern char *rest_json_text(struct json_object *value);

/*
 * Text of Salesforce as it may stand in logs and views: one line, no control
 * characters, valid UTF-8, bounded; no longer than max bytes.  palloc'd.
 */
extern char *rest_clean_text(const char *text, size_t len);
extern char *rest_clean_front(const char *text, size_t len, size_t max);

/* The same of a JSON string; NULL if the value is none. */
extern char *rest_clean_string(struct json_object *value, size_t max);

#endif /* SFSYNC_REST_JSON_H */
