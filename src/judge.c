/*
 * judge.c
 *		What is written of a record, after a look at what Salesforce holds.
 */
#include "compat.h"

#include "utils/memutils.h"

#include "canonical.h"
#include "conflict.h"
#include "datum.h"
#include "delete_policy.h"
#include "judge.h"
#include "payload.h"

/* A field at stake: of the mapping, or set by the delete policy. */
typedef struct Stake
{
	const SfField *field;
	const RestField *value;   /* to be written; NULL: nothing is */
	const FieldValue *remote; /* NULL: not read */
	const char *policy;
	bool restored; /* of a row that came back: what the delete policy had replaced */
} Stake;

typedef struct Stakes
{
	int n;
	Stake *stakes;
	ReconcileField *fields;
} Stakes;

/* Values that are links to their data, or can't be read at all. */
static bool
is_readable(const SfField *field)
{
	return field->type != SF_BASE64 && field->type != SF_OTHER;
}

static bool
among(char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

char **
judge_fields(const Mapping *mapping, int *n)
{
	RestRecord values = {0};
	RestError error = {0};
	char **names;

	if (mapping->delete_values)
		(void) delete_values_record(mapping, "", GetCurrentTimestamp(), &values, &error);
	names = palloc(sizeof(char *) * Max(mapping->nfields + values.nfields, 1));
	*n = 0;
	for (int i = 0; i < mapping->nfields; i++)
		if (is_readable(mapping->fields[i].field))
			names[(*n)++] = pstrdup(mapping->fields[i].field->name);
	for (int i = 0; i < values.nfields; i++)
		if (!among(names, *n, values.fields[i].name))
			names[(*n)++] = pstrdup(values.fields[i].name);
	return names;
}

static const FieldValue *
remote_value(const JudgeCase *judged, const char *name)
{
	for (int i = 0; judged->read && i < judged->nfields; i++)
		if (strcmp(judged->fields[i], name) == 0)
			return judged->read->values[i].kind == FV_ABSENT ? NULL : &judged->read->values[i];
	return NULL;
}

static const SfField *
meta_field(const Mapping *mapping, const char *name)
{
	for (int i = 0; i < mapping->meta->nfields; i++)
		if (strcmp(mapping->meta->fields[i].name, name) == 0)
			return &mapping->meta->fields[i];
	return NULL;
}

static uint64
hash_of(const FieldValue *value, const SfField *field)
{
	return canonical_hash(canonical_value(value, field));
}

static int64
by_salesforces_clock(const JudgeCase *judged, int64 at)
{
	return at == RECONCILE_NEVER ? at : at + judged->clock_skew;
}

/* When an event last changed one of the columns that feed the field; false if none did. */
static bool
field_event(const JudgeCase *judged, const MappingField *field, int64 *at)
{
	const Mapping *mapping = judged->mapping;
	bool changed = false;

	*at = RECONCILE_NEVER;
	for (int i = 0; i < field->ninputs; i++)
	{
		int64 column_at;

		if (!batch_column_changed(judged->unit, mapping->columns[field->inputs[i]].attnum - 1, &column_at))
			continue;
		changed = true;
		*at = Max(*at, column_at);
	}
	if (changed && *at == RECONCILE_NEVER && judged->row)
		*at = payload_updated_at(mapping, judged->row, RECONCILE_NEVER);
	*at = by_salesforces_clock(judged, *at);
	return changed;
}

static FieldPolicy
policy_of(const char *name)
{
	static const struct
	{
		const char *name;
		FieldPolicy policy;
	} policies[] = {{"newest_wins", POLICY_NEWEST_WINS},
					{"strict", POLICY_STRICT},
					{"source_wins", POLICY_SOURCE_WINS},
					{"fill_if_empty", POLICY_FILL_IF_EMPTY},
					{"create_only", POLICY_CREATE_ONLY}};

	for (int i = 0; i < lengthof(policies); i++)
		if (strcmp(policies[i].name, name) == 0)
			return policies[i].policy;
	return POLICY_NEWEST_WINS;
}

static const char *
policy_name(const Mapping *mapping, const MappingField *field)
{
	return field && field->policy ? field->policy : mapping->conflict_policy;
}

static bool
set_by_intent(const JudgeCase *judged, const char *name)
{
	for (int i = 0; i < judged->nintents; i++)
		if (among(judged->intents[i].keys, judged->intents[i].nkeys, judged->unit->key) &&
			among(judged->intents[i].fields, judged->intents[i].nfields, name))
			return true;
	return false;
}

/* Field names in history: Account for AccountId (reference, section 7.4). */
static bool
is_history_of(const char *asked, const char *name)
{
	size_t len = strlen(name);

	return strcmp(asked, name) == 0 || (len > 2 && strcmp(name + len - 2, "Id") == 0 &&
										strlen(asked) == len - 2 && strncmp(asked, name, len - 2) == 0);
}

static bool
is_us(const JudgeCase *judged, const char *user)
{
	return judged->our_user && user && strcmp(judged->our_user, user) == 0;
}

/*
 * The newest change of the field that its history has (it begins with the
 * newest); NULL if that is our user's: older ones are not of the value that is
 * there.
 */
static const RestChange *
history_of(const JudgeCase *judged, const char *name)
{
	for (int i = 0; i < judged->nhistory; i++)
		if (strcmp(judged->history[i].id, judged->read->id) == 0 &&
			is_history_of(judged->history_fields[judged->history[i].field], name))
			return is_us(judged, judged->history[i].by) ? NULL : &judged->history[i];
	return NULL;
}

/* A lookup is compared by the Id of the parent's record, as far as that is known. */
static void
set_wanted(ReconcileField *out, const Stake *stake, const char *parent_id)
{
	FieldValue by_id = {.kind = FV_STRING, .text = unconstify(char *, parent_id)};
	const FieldValue *value = stake->value ? &stake->value->value : NULL;

	out->known = value && canonical_comparable(stake->field);
	if (value && value->kind == FV_LOOKUP)
	{
		out->known = parent_id != NULL;
		value = &by_id;
	}
	if (out->known)
		out->wanted = hash_of(value, stake->field);
}

static const FieldValue nothing = {.kind = FV_NULL};

static void
set_remote(const JudgeCase *judged, ReconcileField *out, const Stake *stake)
{
	const RestChange *change = history_of(judged, stake->field->name);

	out->readable = stake->remote != NULL;
	if (stake->remote)
	{
		out->remote = hash_of(stake->remote, stake->field);
		out->empty = out->remote == hash_of(&nothing, stake->field);
	}
	out->history_at = change ? change->at : 0;
	out->in_intent = set_by_intent(judged, stake->field->name);
}

static const RestField *
find_value(const RestRecord *record, const char *name)
{
	for (int i = 0; i < record->nfields; i++)
		if (strcmp(record->fields[i].name, name) == 0)
			return &record->fields[i];
	return NULL;
}

static void
add_mapped(const JudgeCase *judged, Stakes *stakes, int i, const RestRecord *values)
{
	const MappingField *field = &judged->mapping->fields[i];
	Stake *stake = &stakes->stakes[stakes->n];
	ReconcileField *out = &stakes->fields[stakes->n++];
	bool changed = field_event(judged, field, &out->event_at);

	stake->field = field->field;
	stake->remote = remote_value(judged, field->field->name);
	stake->value = changed ? find_value(values, field->field->name) : NULL;
	stake->policy = policy_name(judged->mapping, field);
	out->name = canonical_hash(field->field->name);
	out->policy = policy_of(stake->policy);
	out->changed = stake->value != NULL;
	set_wanted(out, stake, judged->parent_ids ? judged->parent_ids[i] : NULL);
	set_remote(judged, out, stake);
}

/* Does the row itself set the field? */
static bool
is_at_stake(const Stakes *stakes, const char *name)
{
	for (int i = 0; i < stakes->n; i++)
		if (stakes->stakes[i].value && strcmp(stakes->stakes[i].field->name, name) == 0)
			return true;
	return false;
}

/* A field that only the delete policy sets: changed by the row's delete, or put back when it returns. */
static void
add_policy_field(const JudgeCase *judged, Stakes *stakes, const RestField *value, bool restored)
{
	const SfField *field = meta_field(judged->mapping, value->name);
	Stake *stake;
	ReconcileField *out;

	if (!field || is_at_stake(stakes, value->name))
		return;
	stake = &stakes->stakes[stakes->n];
	out = &stakes->fields[stakes->n++];
	stake->field = field;
	stake->value = value;
	stake->remote = remote_value(judged, field->name);
	stake->restored = restored;
	out->name = canonical_hash(field->name);
	stake->policy = judged->mapping->conflict_policy;
	out->policy = policy_of(stake->policy);
	out->changed = !restored;
	out->event_at = by_salesforces_clock(judged, judged->unit->event_at);
	set_wanted(out, stake, NULL);
	set_remote(judged, out, stake);
}

/* Fields of the delete policy, of which it is noted when others set them: it may matter one day. */
static void
add_others(const JudgeCase *judged, Stakes *stakes)
{
	for (int i = 0; judged->mapping->delete_values && i < judged->nfields; i++)
	{
		const SfField *field;
		bool there = false;

		for (int s = 0; s < stakes->n && !there; s++)
			there = strcmp(stakes->stakes[s].field->name, judged->fields[i]) == 0;
		field = there ? NULL : meta_field(judged->mapping, judged->fields[i]);
		if (!field)
			continue;
		stakes->stakes[stakes->n].field = field;
		stakes->stakes[stakes->n].remote = remote_value(judged, field->name);
		stakes->fields[stakes->n].name = canonical_hash(field->name);
		set_remote(judged, &stakes->fields[stakes->n], &stakes->stakes[stakes->n]);
		stakes->n++;
	}
}

static ReconcileRecord
record_state(const JudgeCase *judged, const RestRead *read)
{
	ReconcileRecord record = {0};

	record.modified_at = read->last_modified;
	record.by_us = is_us(judged, read->last_modified_by);
	for (int i = 0; i < judged->nintents; i++)
	{
		int64 at = by_salesforces_clock(judged, judged->intents[i].sent_at);

		if (among(judged->intents[i].keys, judged->intents[i].nkeys, judged->unit->key) &&
			(record.intent_at == 0 || at < record.intent_at))
			record.intent_at = at;
	}
	return record;
}

static void
note_wrote(Outcome *outcome, uint64 field, uint64 value)
{
	outcome->wrote[outcome->nwrote] = field;
	outcome->wrote_values[outcome->nwrote++] = value;
}

static void
start_notes(Outcome *outcome, int max)
{
	outcome->wrote = palloc(sizeof(uint64) * Max(max, 1));
	outcome->wrote_values = palloc(sizeof(uint64) * Max(max, 1));
	outcome->conflicts.notes = palloc0(sizeof(ConflictNote) * Max(max, 1));
	outcome->conflicts.settled = palloc(sizeof(char *) * Max(max, 1));
}

static void
settled(Outcome *outcome, const char *name)
{
	outcome->conflicts.settled[outcome->conflicts.nsettled++] = pstrdup(name);
}

/* Who set a value at that time, as far as it can be known. */
static const char *
modifier(const JudgeCase *judged, const RestChange *change, int64 at)
{
	if (change)
		return change->by;
	return at == judged->read->last_modified ? judged->read->last_modified_by : NULL;
}

static void
note_kept(const JudgeCase *judged, Outcome *outcome, const Stake *stake, const ReconcileField *field)
{
	ConflictNote *note = &outcome->conflicts.notes[outcome->conflicts.n++];
	const FieldMemory *theirs = memory_find(outcome->memory, field->name);
	const RestChange *change = history_of(judged, stake->field->name);

	note->field = pstrdup(stake->field->name);
	note->source_value = conflict_value(&stake->value->value);
	note->salesforce_value = conflict_value(stake->remote);
	note->event_at = field->event_at == RECONCILE_NEVER ? 0 : field->event_at - judged->clock_skew;
	note->modified_at = theirs ? theirs->at : judged->read->last_modified;
	note->modified_by = modifier(judged, change, note->modified_at);
	note->policy = stake->policy;
}

/* Fields to write into the judgement's record, and what is to be noted of the others. */
static void
carry_out(const JudgeCase *judged, const Stakes *stakes, Judgement *judgement, Outcome *outcome)
{
	for (int i = 0; i < stakes->n; i++)
	{
		const Stake *stake = &stakes->stakes[i];
		const ReconcileField *field = &stakes->fields[i];

		switch (field->decision)
		{
			case FIELD_WRITE:
				judgement->record.fields[judgement->record.nfields++] = *stake->value;
				judgement->guarded |= field->policy == POLICY_STRICT;
				note_wrote(outcome, field->name, field->wanted);
				settled(outcome, stake->field->name);
				break;
			case FIELD_EQUAL:
				settled(outcome, stake->field->name);
				break;
			case FIELD_KEEP:
				judgement->kept_by_time |= field->history_at == 0;
				note_kept(judged, outcome, stake, field);
				break;
			default:
				break;
		}
	}
}

/* What the delete policy set is undone where Salesforce still holds it. */
static void
restore(Stakes *stakes, const Memory *memory)
{
	for (int i = 0; i < stakes->n; i++)
	{
		const FieldMemory *entry = memory_find(memory, stakes->fields[i].name);

		if (stakes->stakes[i].restored && stakes->fields[i].readable && entry && !entry->theirs)
			stakes->fields[i].decision = FIELD_WRITE;
	}
}

static void
start_stakes(Stakes *stakes, int max)
{
	stakes->n = 0;
	stakes->stakes = palloc0(sizeof(Stake) * Max(max, 1));
	stakes->fields = palloc0(sizeof(ReconcileField) * Max(max, 1));
}

static void
reconcile_all(const JudgeCase *judged, Stakes *stakes, Judgement *judgement, Outcome *outcome)
{
	ReconcileRecord record = record_state(judged, judged->read);

	judgement->memory_changed = reconcile(&record, stakes->fields, stakes->n, outcome->memory);
	judgement->record.fields = palloc0(sizeof(RestField) * Max(stakes->n, 1));
	restore(stakes, outcome->memory);
	start_notes(outcome, stakes->n);
	outcome->conflicts.record_settled = true;
	carry_out(judged, stakes, judgement, outcome);
}

Judgement
judge_update(const JudgeCase *judged, Outcome *outcome)
{
	const Mapping *mapping = judged->mapping;
	const Unit *unit = judged->unit;
	Judgement judgement = {.good = true};
	RestRecord values = {0};
	Stakes stakes;

	judgement.good = payload_build(mapping, judged->row, datum_key_utf8(unit->key),
								   unit->whole && unit->whole_at != 0 ? NULL : unit->changed,
								   unit->changed_len, PAYLOAD_UPDATE, &values, &judgement.error);
	start_stakes(&stakes, mapping->nfields + judged->nreplaced + judged->nfields);
	for (int i = 0; i < mapping->nfields; i++)
		add_mapped(judged, &stakes, i, &values);
	for (int i = 0; i < judged->nreplaced; i++)
		add_policy_field(judged, &stakes, &judged->replaced[i], true);
	add_others(judged, &stakes);
	reconcile_all(judged, &stakes, &judgement, outcome);
	outcome->set_replaced = judged->nreplaced > 0;
	return judgement;
}

void
judge_create(const JudgeCase *judged, const RestRecord *record, Outcome *outcome)
{
	const Mapping *mapping = judged->mapping;

	start_notes(outcome, mapping->nfields);
	outcome->conflicts.record_settled = true;
	outcome->memory->n = 0;
	for (int i = 0; i < mapping->nfields; i++)
	{
		const SfField *field = mapping->fields[i].field;
		ReconcileField wanted = {.name = canonical_hash(field->name)};
		Stake stake = {.field = field, .value = find_value(record, field->name)};

		if (stake.value)
			set_wanted(&wanted, &stake, judged->parent_ids ? judged->parent_ids[i] : NULL);
		else
			wanted.wanted = hash_of(&nothing, field);
		note_wrote(outcome, wanted.name, wanted.wanted);
		settled(outcome, field->name);
	}
}

/* {"Field": value before, ...}; NULL: nothing is replaced. */
static char *
replaced_values(const JudgeCase *judged, const Stakes *stakes)
{
	StringInfoData json;

	initStringInfo(&json);
	for (int i = 0; i < stakes->n; i++)
		if (stakes->fields[i].decision == FIELD_WRITE && stakes->stakes[i].remote)
			appendStringInfo(&json, "%s\"%s\":%s", json.len > 0 ? "," : "", stakes->stakes[i].field->name,
							 conflict_value(stakes->stakes[i].remote));
	return json.len > 0 ? psprintf("{%s}", json.data) : NULL;
}

Judgement
judge_archive(const JudgeCase *judged, const RestRecord *values, Outcome *outcome)
{
	Judgement judgement = {.good = true};
	Stakes stakes;

	start_stakes(&stakes, values->nfields);
	for (int i = 0; i < values->nfields; i++)
		add_policy_field(judged, &stakes, &values->fields[i], false);
	reconcile_all(judged, &stakes, &judgement, outcome);

	/* archived before: what was there then is still what is put back */
	outcome->set_replaced = judged->nreplaced == 0;
	outcome->replaced = replaced_values(judged, &stakes);
	return judgement;
}

/* The whole record is at stake: one conflict without a field. */
static void
note_record(const JudgeCase *judged, const RestRead *theirs, int64 event_at, Outcome *outcome)
{
	ConflictNote *note = palloc0(sizeof(ConflictNote));

	note->event_at = event_at == RECONCILE_NEVER ? 0 : event_at;
	note->modified_at = Max(theirs->last_modified, theirs->system_modstamp);
	note->modified_by = theirs->last_modified_by;
	note->policy = judged->mapping->conflict_policy;
	outcome->conflicts.n = 1;
	outcome->conflicts.notes = note;
}

bool
judge_edited(const JudgeCase *judged, Outcome *outcome)
{
	ReconcileRecord record = record_state(judged, judged->read);

	if (!reconcile_edited_since(&record, outcome->memory,
								by_salesforces_clock(judged, judged->unit->event_at)))
		return false;
	note_record(judged, judged->read, judged->unit->event_at, outcome);
	return true;
}

/* Did a person's statement change the row, or is it a backfill that brings it? */
static bool
has_event(const Unit *unit)
{
	int64 at;

	if (unit->deleted || unit->nold > 0 || (unit->whole_at != 0 && unit->whole_at != RECONCILE_NEVER))
		return true;
	for (int bit = 0; bit < unit->changed_len * 8; bit++)
		if (batch_column_changed(unit, bit, &at) && at != RECONCILE_NEVER)
			return true;
	return false;
}

/* The newest event of the row; backfills, which make nothing anew that is gone, are none. */
static int64
row_event(const JudgeCase *judged)
{
	return has_event(judged->unit) ? judged->unit->event_at : RECONCILE_NEVER;
}

bool
judge_gone(const JudgeCase *judged, const RestRead *gone, Outcome *outcome)
{
	int64 event_at = row_event(judged);
	ReconcileRecord record = record_state(judged, gone);
	Memory none = {0, NULL};

	if (gone->found)
		record.modified_at = Max(gone->last_modified, gone->system_modstamp);
	if (!gone->master_record_id)
	{
		if (!gone->found ? event_at != RECONCILE_NEVER
						 : !reconcile_edited_since(&record, &none, by_salesforces_clock(judged, event_at)))
			return false;
	}
	note_record(judged, gone, event_at, outcome);
	return true;
}
