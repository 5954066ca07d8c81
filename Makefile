# sfsync: keeps Salesforce records in step with the rows of this database
EXTENSION = sfsync
MODULE_big = sfsync
DATA = sql/sfsync--1.0.sql
OBJS = \
	src/alter.o \
	src/api.o \
	src/aside.o \
	src/auth.o \
	src/backfills.o \
	src/batch.o \
	src/budget.o \
	src/bulk.o \
	src/bulk_answer.o \
	src/bulk_gather.o \
	src/bulk_job.o \
	src/bulk_reply.o \
	src/bulk_rows.o \
	src/bulk_settle.o \
	src/bulk_store.o \
	src/canonical.o \
	src/capture.o \
	src/capture_table.o \
	src/changes.o \
	src/check.o \
	src/check_connection.o \
	src/circle.o \
	src/claim.o \
	src/coerce.o \
	src/columns.o \
	src/compare.o \
	src/conflict.o \
	src/connection.o \
	src/create.o \
	src/create_field.o \
	src/credentials.o \
	src/datum.o \
	src/decide.o \
	src/delete_policy.o \
	src/delivery.o \
	src/describe.o \
	src/digest.o \
	src/drift.o \
	src/enqueue.o \
	src/errors.o \
	src/expression.o \
	src/family.o \
	src/fence.o \
	src/fetch.o \
	src/finish.o \
	src/follow.o \
	src/foreground.o \
	src/gather.o \
	src/guard.o \
	src/gzip.o \
	src/health.o \
	src/hints.o \
	src/history.o \
	src/http.o \
	src/http_reply.o \
	src/http_request.o \
	src/init.o \
	src/intents.o \
	src/judge.o \
	src/launcher.o \
	src/lexical.o \
	src/lock.o \
	src/locked.o \
	src/look.o \
	src/mapping.o \
	src/mapping_load.o \
	src/meet.o \
	src/move.o \
	src/names.o \
	src/notes.o \
	src/options.o \
	src/payload.o \
	src/poison.o \
	src/preview.o \
	src/queue.o \
	src/reads.o \
	src/ready.o \
	src/reconcile.o \
	src/records.o \
	src/release.o \
	src/reply.o \
	src/resolve.o \
	src/rest.o \
	src/rest_form.o \
	src/rest_json.o \
	src/rest_query.o \
	src/rest_read.o \
	src/rest_reply.o \
	src/route.o \
	src/rules.o \
	src/secret_file.o \
	src/send.o \
	src/settle.o \
	src/sfsync.o \
	src/shmem.o \
	src/source.o \
	src/source_keys.o \
	src/sql.o \
	src/state.o \
	src/status.o \
	src/subxact.o \
	src/throttle.o \
	src/tooling.o \
	src/trouble.o \
	src/turn.o \
	src/unit_map.o \
	src/url.o \
	src/verdict.o \
	src/worker.o \
	src/writes.o
PGFILEDESC = "sfsync - keeps Salesforce records in step with rows"

REGRESS = audit connection deletes expression mapping objects queue
REGRESS_OPTS = --inputdir=test --temp-instance=tmp_check_regress --temp-config=test/sfsync.conf
ISOLATION = capture drop rows truncate
ISOLATION_OPTS = --inputdir=test --outputdir=. --temp-instance=tmp_check_isolation --temp-config=test/sfsync.conf
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CPPFLAGS = -I$(srcdir)/src $(shell pkg-config --cflags libcurl json-c libcrypto zlib)
# the tests build with WERROR=-Werror; a newer compiler that warns of more is nobody's failed installation
PG_CFLAGS = -Wall -Wextra $(WERROR) -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -fvisibility=hidden
# clang is told what the server's own gcc was
PG_CFLAGS += $(if $(findstring clang,$(CC)),-Wno-unknown-warning-option -Wno-ignored-attributes)
SHLIB_LINK = $(shell pkg-config --libs libcurl json-c libcrypto zlib) -lcsv
EXTRA_CLEAN = tmp_check_regress tmp_check_isolation

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
# PostgreSQL 15 leaves the marking of exported symbols to the module.
ifeq ($(shell $(PG_CONFIG) --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'),15)
PG_CPPFLAGS += '-DPGDLLEXPORT=__attribute__((visibility("default")))'
endif
include $(PGXS)

$(OBJS): $(wildcard $(srcdir)/src/*.h)
