/*
 * create_field.c
 *		new_columns 'create_field': a field for each column that was added later
 *		and matches none.
 *
 * One field at a time for a mapping, in steps of one request each: make the
 * field, find or make the permission set, grant, assign, describe again.  Each
 * step takes what is there already for done, so a creation that a crash cut off
 * just begins anew.  Once the field is visible the rules by name map the column.
 *
 * What fails is told in field_map and tried again after schema_ttl: it takes a
 * person to mend it.
 */
#include "compat.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api.h"
#include "create_field.h"
#include "datum.h"
#include "errors.h"
#include "locked.h"
#include "mapping.h"
#include "sfsync.h"
#include "sql.h"
#include "tooling.h"

typedef enum CreationStep
{
	STEP_CREATE,
	STEP_FIND_SET,
	STEP_CREATE_SET,
	STEP_GRANT,
	STEP_ASSIGN
} CreationStep;

typedef struct FieldCreation
{
	CreationStep step;
	AttrNumber attnum;
	char *name;
	char permission_set[19];
	bool searched_twice;
} FieldCreation;

/*
 * What became of it, for all to see
 */

static const char note_query[] =
	"INSERT INTO sfsync.field_creation AS f (mapping, attnum, problem, retry_at)"
	" VALUES ($1, $2, $3, $4)"
	" ON CONFLICT (mapping, attnum) DO UPDATE SET problem = coalesce(excluded.problem, f.problem),"
	" retry_at = excluded.retry_at";

/* Under way (no problem), it goes on at once after a crash; what failed waits. */
static void
note(const Mapping *mapping, AttrNumber attnum, const char *problem)
{
	TimestampTz retry_at = problem ? GetCurrentTimestamp() + MILLISECONDS(sfsync_schema_ttl) : 0;
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, note_query, sql_arg_int(mapping->id), sql_arg_int(attnum), sql_arg_text(problem),
			sql_arg_time(retry_at));
	sql_close(&scope);
	mapping_changed(mapping->source);
}

/* Was the same told before? */
static bool
is_told(const Mapping *mapping, AttrNumber attnum, const char *problem)
{
	SqlScope scope;
	bool told;

	sql_open(&scope);
	told = SQL_RUN(&scope,
				   "SELECT FROM sfsync.field_creation WHERE mapping = $1 AND attnum = $2 AND problem = $3",
				   sql_arg_int(mapping->id), sql_arg_int(attnum), sql_arg_text(problem)) > 0;
	sql_close(&scope);
	return told;
}

static void
failed(const Mapping *mapping, AttrNumber attnum, const char *problem)
{
	if (!is_told(mapping, attnum, problem))
		ereport(LOG, (errmsg("sfsync: mapping \"%s\": %s", mapping->name, problem)));
	note(mapping, attnum, problem);
}

/*
 * Which column
 */

static const MappingColumn *
still_wanted(const Mapping *mapping, AttrNumber attnum)
{
	for (int i = 0; i < mapping->nroutes; i++)
	{
		const MappingColumn *column = &mapping->columns[mapping->routes[i].column];

		if (mapping->routes[i].wanted && column->attnum == attnum)
			return column;
	}
	return NULL;
}

TimestampTz
create_field_due(const MappingDelivery *state, const Mapping *mapping)
{
	TimestampTz due = 0;

	if (state->creation)
		return DT_NOBEGIN;
	for (int i = 0; mapping->meta && i < mapping->nroutes; i++)
		if (mapping->routes[i].wanted && (due == 0 || mapping->routes[i].wanted_at < due))
			due = mapping->routes[i].wanted_at;
	return due;
}

/*
 * Which type
 */

static NewField
enum_field(Oid type)
{
	SqlScope scope;
	int n;
	char **labels;

	sql_open(&scope);
	n = SQL_RUN(&scope,
				"SELECT enumlabel::text FROM pg_catalog.pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder",
				sql_arg_oid(type));
	labels = sql_column(&scope, 1);
	sql_close(&scope);
	for (int i = 0; i < n; i++)
		labels[i] = pg_server_to_any(labels[i], strlen(labels[i]), PG_UTF8);
	return tooling_picklist(labels, n);
}

/* Types that are texts to sfsync. */
static NewField
text_field(Oid type, int32 typmod)
{
	switch (type)
	{
		case VARCHAROID:
		case BPCHAROID:
			return tooling_text(typmod >= (int32) VARHDRSZ ? typmod - VARHDRSZ : 0);
		case UUIDOID:
			return tooling_text(36);
		case NAMEOID:
		case CHAROID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
		case INTERVALOID:
		case TIMETZOID:
		case CASHOID:
		case PG_LSNOID:
			return tooling_text(255);
		default:
			return get_typtype(type) == TYPTYPE_ENUM ? enum_field(type) : tooling_text(0);
	}
}

/* As the server's numeric_typmod_ functions, which it keeps to itself. */
static int
numeric_precision(int32 typmod)
{
	return ((typmod - (int32) VARHDRSZ) >> 16) & 0xFFFF;
}

static int
numeric_scale(int32 typmod)
{
	return (((typmod - (int32) VARHDRSZ) & 0x7FF) ^ 1024) - 1024;
}

static NewField
integer_field(Oid type)
{
	return tooling_number(type == INT2OID ? 5 : type == INT8OID ? 18 : 10, 0);
}

/* False for a type that Salesforce has no field for. */
static bool
field_of_column(const Mapping *mapping, const MappingColumn *column, NewField *field)
{
	int32 typmod;
	Oid type;
	Oid collation;

	memset(field, 0, sizeof(*field));
	get_atttypetypmodcoll(mapping->source, column->attnum, &type, &typmod, &collation);
	type = getBaseTypeAndTypmod(type, &typmod);
	switch (datum_kind(type))
	{
		case SRC_BOOL:
			field->type = NEW_FIELD_CHECKBOX;
			return true;
		case SRC_INTEGER:
			*field = integer_field(type);
			return true;
		case SRC_NUMERIC:
			*field = typmod >= (int32) VARHDRSZ
						 ? tooling_number(numeric_precision(typmod), numeric_scale(typmod))
						 : tooling_text(255);
			return true;
		case SRC_FLOAT:
			*field = tooling_number(18, 6);
			return true;
		case SRC_DATE:
			field->type = NEW_FIELD_DATE;
			return true;
		case SRC_TIMESTAMPTZ:
			field->type = NEW_FIELD_DATETIME;
			return true;
		case SRC_TIME:
			field->type = NEW_FIELD_TIME;
			return true;
		case SRC_JSON:
			*field = tooling_text(131072);
			return true;
		case SRC_TEXT:
			*field = text_field(type, typmod);
			return true;
		case SRC_ARRAY:
			*field = tooling_text(0);
			return true;
		case SRC_BYTEA:
			break;
	}
	return false;
}

/*
 * The steps
 */

static bool
begin(MappingDelivery *state, const Mapping *mapping, const MappingColumn *column, MemoryContext context)
{
	char *name = tooling_field_name(column->name);
	NewField field;
	const char *problem = NULL;
	MemoryContext caller;

	if (!name)
		problem = psprintf("no field is created, as its name can't be made of the column's: letters, digits "
						   "and underscores, %d at most, a letter first; make one by hand and map it with "
						   "sfsync.map_field",
						   40);
	else if (!field_of_column(mapping, column, &field))
		problem = psprintf("no field is created, as Salesforce has none for type %s", column->type_name);
	if (problem)
	{
		failed(mapping, column->attnum, psprintf("column \"%s\": %s", column->name, problem));
		return false;
	}
	note(mapping, column->attnum, NULL);
	caller = MemoryContextSwitchTo(context);
	state->creation = palloc0(sizeof(FieldCreation));
	state->creation->attnum = column->attnum;
	state->creation->name = pstrdup(name);
	MemoryContextSwitchTo(caller);
	return true;
}

/* With the first column that is due and can have a field. */
static void
begin_due(MappingDelivery *state, const Mapping *mapping, MemoryContext context)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < mapping->nroutes; i++)
	{
		const Route *route = &mapping->routes[i];

		if (route->wanted && route->wanted_at <= now &&
			begin(state, mapping, &mapping->columns[route->column], context))
			return;
	}
}

static void
end(MappingDelivery *state)
{
	pfree(state->creation->name);
	pfree(state->creation);
	state->creation = NULL;
}

static void
give_up(MappingDelivery *state, const char *reason)
{
	Mapping *mapping = mapping_get(state->id);

	if (mapping)
		failed(mapping, state->creation->attnum,
			   psprintf("field %s %s: %s", state->creation->name,
						state->creation->step == STEP_CREATE
							? "could not be created"
							: "was created, but could not be granted to the integration user",
						sql_from_utf8(reason)));
	end(state);
}

static RestCall *
make_call(const FieldCreation *creation, const Mapping *mapping, const MappingColumn *column,
		  const Connection *connection)
{
	const char *version = connection->options->api_version;
	const char *object = mapping->meta->name;
	NewField field;

	switch (creation->step)
	{
		case STEP_CREATE:
			(void) field_of_column(mapping, column, &field);
			return tooling_create_field(version, object, creation->name, tooling_field_label(column->name),
										&field);
		case STEP_FIND_SET:
			return tooling_find_permission_set(version);
		case STEP_CREATE_SET:
			return tooling_create_permission_set(version);
		case STEP_GRANT:
			return tooling_grant_field(version, creation->permission_set, object, creation->name);
		case STEP_ASSIGN:
			break;
	}
	return tooling_assign(version, creation->permission_set, connection->token->user_id);
}

static void
send_step(Delivery *delivery, MappingDelivery *state, const Mapping *mapping, const MappingColumn *column,
		  Connection *connection)
{
	MemoryContext context =
		AllocSetContextCreate(delivery->turn_context, "sfsync request", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Request *request = delivery_request(REQUEST_CREATE_FIELD, connection, mapping);

	request->call = make_call(state->creation, mapping, column, connection);
	state->creation_in_flight = true;
	delivery_send_later(delivery, request);
	MemoryContextSwitchTo(caller);
	MemoryContextSetParent(context, delivery->context);
}

void
create_field_step(Delivery *delivery, MappingDelivery *state, void *arg)
{
	const Mapping *mapping = mapping_get(state->id);
	const MappingColumn *column;
	Connection *connection;

	if (!mapping || state->creation_in_flight || !delivery_lock_source(delivery, state, mapping))
		return;
	mapping = mapping_get(state->id);
	if (!mapping || !mapping->meta || mapping->broken)
		return;
	connection = connection_get(mapping->serverid, mapping->owner);
	if (!connection_logged_in(connection) ||
		!delivery_may_send(delivery, connection, 0, 0, &state->held_until))
		return;
	if (!state->creation)
		begin_due(state, mapping, delivery->context);
	if (!state->creation)
		return;
	column = still_wanted(mapping, state->creation->attnum);
	if (!column)
		end(state);
	else if (state->creation->step == STEP_ASSIGN && !connection->token->user_id)
		give_up(state,
				"the login doesn't tell which user it is; assign the permission set \"" TOOLING_PERMISSION_SET
				"\" by hand");
	else
		send_step(delivery, state, mapping, column, connection);
}

/*
 * Replies
 */

/* Assigned: what was made should be visible now. */
static void
finish(MappingDelivery *state)
{
	Mapping *mapping = mapping_get(state->id);

	if (mapping)
	{
		ereport(LOG, (errmsg("sfsync: mapping \"%s\": field %s is created and granted", mapping->name,
							 state->creation->name)));
		note(mapping, state->creation->attnum,
			 psprintf("field %s was created and granted, but is not visible yet", state->creation->name));
	}
	state->describe_wanted = true;
	end(state);
}

static bool
take_permission_set(FieldCreation *creation, const HttpReply *reply, char **error)
{
	const char *body = reply->body;
	char *id;

	if (creation->step == STEP_FIND_SET ? !tooling_parse_found(body, reply->body_len, &id, error)
										: !tooling_parse_created(body, reply->body_len, &id, error))
		return false;
	if (id)
		strlcpy(creation->permission_set, id, sizeof(creation->permission_set));
	creation->step = id ? STEP_GRANT : STEP_CREATE_SET;
	return true;
}

static void
step_done(MappingDelivery *state, const HttpReply *reply)
{
	FieldCreation *creation = state->creation;
	char *error;

	switch (creation->step)
	{
		case STEP_CREATE:
			creation->step = STEP_FIND_SET;
			break;
		case STEP_FIND_SET:
		case STEP_CREATE_SET:
			if (!take_permission_set(creation, reply, &error))
				give_up(state, error);
			break;
		case STEP_GRANT:
			creation->step = STEP_ASSIGN;
			break;
		case STEP_ASSIGN:
			finish(state);
			break;
	}
}

static bool
exists_already(const RestError *error)
{
	return error->code && (strcmp(error->code, "DUPLICATE_DEVELOPER_NAME") == 0 ||
						   strcmp(error->code, "DUPLICATE_VALUE") == 0);
}

/* The one that exists now was not there when it was looked for. */
static void
set_exists(MappingDelivery *state, const RestError *error)
{
	if (state->creation->searched_twice)
		give_up(state, error->message);
	else
		state->creation->step = STEP_FIND_SET;
	if (state->creation)
		state->creation->searched_twice = true;
}

static bool
is_others_trouble(const HttpReply *reply, const RestError *error)
{
	switch (error_classify(reply->status, error->code, error->message))
	{
		case SCOPE_SESSION:
		case SCOPE_SERVER:
		case SCOPE_CONCURRENT_LIMIT:
		case SCOPE_UNKNOWN_LIMIT:
		case SCOPE_DAILY_LIMIT:
			return true;
		case SCOPE_CONNECTION:
			/* not permitted is no reason to stop the records */
			return error->code && strncmp(error->code, "INSUFFICIENT_ACCESS", 19) != 0 &&
				   strcmp(error->code, "EXCEEDED_QUOTA") != 0;
		default:
			return false;
	}
}

static void
settle(MappingDelivery *state, const HttpReply *reply, const RestError *error)
{
	if (!error)
		step_done(state, reply);
	else if (!exists_already(error))
		give_up(state, psprintf("%s (%s)", rest_error_text(error),
								reply->status == 403
									? "the integration user needs Customize Application, View Setup and "
									  "Configuration, and Assign Permission Sets"
									: error_hint(error->code)));
	else if (state->creation->step == STEP_CREATE_SET)
		set_exists(state, error);
	else
		step_done(state, reply);
}

bool
create_field_reply(Delivery *delivery, Request *request, const HttpReply *reply)
{
	MappingDelivery *state = delivery_of(delivery, request->mapping);
	bool well = reply->status >= 200 && reply->status < 300;
	RestError error = {0};

	state->creation_in_flight = false;
	if (!well)
		error = rest_parse_error(reply->status, reply->body, reply->body_len);
	if (!well && is_others_trouble(reply, &error))
		return false;
	connection_answered(request->connection, reply->elapsed);
	if (state->creation)
		settle(state, reply, well ? NULL : &error);
	return true;
}

void
create_field_recover(MappingDelivery *state)
{
	state->creation_in_flight = false;
}
