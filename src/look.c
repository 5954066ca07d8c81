/*
 * look.c
 *		Which mappings can be delivered now, and what else is due of them.
 */
#include "compat.h"

#include "access/htup_details.h"

#include "bulk_job.h"
#include "create_field.h"
#include "drift.h"
#include "locked.h"
#include "look.h"
#include "mapping.h"
#include "sfsync.h"

typedef struct Look
{
	TimestampTz now;
	TimestampTz next; /* when to look again; 0 never */
	bool woken;
} Look;

static void
follow_drift(Delivery *delivery, MappingDelivery *state, const Mapping *mapping)
{
	if (state->seen_serial == mapping->serial || !mapping->meta || mapping->broken ||
		!delivery_lock_source(delivery, state, mapping))
		return;
	mapping = mapping_get(state->id);
	if (!mapping || !mapping->meta || mapping->broken)
		return;
	if (drift_follow(mapping))
		delivery->backfills_running = true;
	state->seen_serial = mapping->serial;
}

/* Parents go before children, and neither at the same time as its relatives. */
static void
look_at_lookups(Delivery *delivery, MappingDelivery *state, const Mapping *mapping)
{
	state->has_lookups = false;
	for (int i = 0; i < mapping->nfields; i++)
	{
		const RouteLookup *lookup = mapping->fields[i].lookup;

		if (!lookup)
			continue;
		state->has_lookups |= lookup->parent_mapping != mapping->id;
		state->has_family = delivery_of(delivery, lookup->parent_mapping)->has_family = true;
	}
}

/* Who adds a column may have added its field just before. */
static void
look_at_columns(MappingDelivery *state, const Mapping *mapping)
{
	int highest = 0;

	for (int i = 0; i < mapping->ncolumns; i++)
		if (mapping->columns[i].attnum <= MaxHeapAttributeNumber) /* else it is an expression */
			if (!mapping->columns[i].expression)
				highest = Max(highest, mapping->columns[i].attnum);
	if (state->seen_attnum != 0 && highest > state->seen_attnum)
		state->describe_due = true;
	state->seen_attnum = highest;
}

/* What is blocked for its metadata, or in quarantine, is looked at again though nothing is to be sent. */
static void
look_at_metadata(MappingDelivery *state, const Mapping *mapping, Look *look)
{
	TimestampTz stale_at = mapping->metadata_at + MILLISECONDS(sfsync_schema_ttl);

	state->needs_metadata =
		!mapping->has_metadata || mapping->refresh_wanted || state->describe_wanted || state->describe_due;
	if (!mapping->broken && !drift_in_quarantine(mapping))
		return;
	if (stale_at <= look->now)
		state->needs_metadata = true;
	else
		delivery_soonest(&look->next, stale_at);
}

/* What wasn't there may be there for other options: in another org, or to another user. */
static void
look_at_options(MappingDelivery *state, const Mapping *mapping, const Connection *connection)
{
	if (state->seen_changes != 0 && state->seen_changes != connection->changes && mapping->broken)
		state->describe_wanted = true;
	state->seen_changes = connection->changes;
}

/* The token for the creation of a field is asked for like that for metadata. */
static void
look_at_creation(MappingDelivery *state, const Mapping *mapping, const Connection *connection, Look *look)
{
	TimestampTz due = create_field_due(state, mapping);

	state->creation_due = due != 0 && due <= look->now;
	if (!state->creation_due)
		delivery_soonest(&look->next, due);
	else if (!connection_logged_in(connection))
		state->needs_metadata = true;
}

/* So is that for a job. */
static void
look_at_bulk(const Delivery *delivery, MappingDelivery *state, const Mapping *mapping,
			 const Connection *connection)
{
	state->bulk_threshold = bulk_threshold(mapping, connection);
	if (!connection->token && bulk_has_job(delivery, mapping->id))
		state->needs_metadata = true;
}

static void
look_at_mapping(Delivery *delivery, MappingDelivery *state, void *arg)
{
	Look *look = arg;
	Mapping *mapping;
	Connection *connection;
	TimestampTz again;

	state->deliverable = state->needs_metadata = state->creation_due = false;
	state->bulk_threshold = 0;
	state->held_until = 0;
	if (locked_rests(state, look->now, &again) || locked_by_drop(state, look->woken, look->now, &again))
	{
		delivery_soonest(&look->next, again);
		return;
	}
	mapping = mapping_get(state->id);
	if (!mapping)
	{
		state->deliverable = true; /* what is left of it is thrown away */
		return;
	}
	if (state->blocked && Max(state->blocked_until, state->refused_until) > look->now &&
		!connection_changed(mapping->serverid, mapping->owner, state->seen_changes))
	{
		delivery_soonest(&look->next, Max(state->blocked_until, state->refused_until));
		return;
	}
	if (locked_still(state, mapping, look->woken, look->now, &again))
	{
		delivery_soonest(&look->next, again);
		return;
	}
	if (mapping->paused || !sfsync_enabled)
		return;
	if (!OidIsValid(mapping->serverid) || !mapping->source_name)
	{
		delivery_block(delivery, state, mapping->broken, look->now);
		return;
	}
	connection = connection_get(mapping->serverid, mapping->owner);
	if (!connection_usable(connection, look->now, &again))
	{
		delivery_soonest(&look->next, again);
		return;
	}
	look_at_options(state, mapping, connection);
	look_at_columns(state, mapping);
	look_at_metadata(state, mapping, look);
	if (mapping->broken && !state->needs_metadata)
	{
		delivery_block(delivery, state, mapping->broken, look->now);
		delivery_soonest(&look->next, state->blocked_until);
		return;
	}
	delivery_unblock(state);
	state->deliverable = true;
	look_at_bulk(delivery, state, mapping, connection);
	look_at_lookups(delivery, state, mapping);
	if (mapping->refresh_wanted || state->describe_wanted || state->describe_due)
		return; /* what follows is for metadata that hold */
	follow_drift(delivery, state, mapping);
	look_at_creation(state, mapping, connection, look);
}

void
look_at_mappings(Delivery *delivery, bool woken)
{
	Look look = {GetCurrentTimestamp(), 0, woken};
	ListCell *lc;

	if (mapping_was_invalidated())
	{
		int n;
		int *ids = mapping_ids(&n);

		connections_mark_stale();
		for (int i = 0; i < n; i++)
			(void) delivery_of(delivery, ids[i]);
		foreach(lc, delivery->mappings)
			((MappingDelivery *) lfirst(lc))->blocked_until = 0;
		delivery->backfills_running = true;
		delivery->deferred_from = DT_NOBEGIN;
		delivery->next_due = look.now;
	}
	foreach(lc, delivery->mappings)
	{
		MappingDelivery *state = lfirst(lc);
		bool was = state->deliverable;

		if (!delivery_guard(delivery, state, look_at_mapping, &look))
			state->deliverable = false;
		if (state->deliverable && !was)
		{
			delivery->deferred_from = DT_NOBEGIN;
			delivery->next_due = look.now;
		}
	}
	delivery->next_retry = look.next;
}
