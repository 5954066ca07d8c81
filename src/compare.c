#include "compat.h"
#include "fmgr.h"
PG_FUNCTION_INFO_V1(sfsync_compare);

Datum
sfsync_compare(PG_FUNCTION_ARGS)
{
	PG_RETURN_NULL();
}
