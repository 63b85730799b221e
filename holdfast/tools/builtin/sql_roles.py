"""Which roles may ask a database for a model. The tool `sql_query` refuses the others before anything is asked.

A read-only transaction does not stop a function that acts outside of it, and a model may get at rights of the role that
opened the session, whatever role it has taken on since. So both are looked at: `session_user` and `current_user`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import ToolError

if TYPE_CHECKING:
    import asyncpg

    Session = asyncpg.Connection[asyncpg.Record]

__all__ = ["Limits", "check_role"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tool may take: seconds, rows, characters; and which roles it may ask with."""

    timeout: float
    rows: int
    size: int
    superuser: bool = False
    public: bool = False


# Roles to which a read-only transaction is no obstacle, and rights that go with a role's name.
_POWERFUL = """
select r.rolname from pg_roles r
where (r.rolsuper or r.rolreplication or r.rolcreaterole or r.rolcreatedb
       or r.rolname in ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files',
                        'pg_signal_backend', 'pg_signal_autovacuum_worker', 'pg_write_all_data', 'pg_maintain',
                        'pg_create_subscription', 'pg_checkpoint'))
  and (pg_has_role(session_user, r.oid, 'member') or pg_has_role(current_user, r.oid, 'member'))
limit 1
"""
_OWNED = """
select pg_describe_object(d.classid, d.objid, d.objsubid)
from pg_shdepend d
where d.refclassid = 'pg_authid'::regclass and d.deptype = 'o'
  and (d.dbid = 0 or d.dbid = (select oid from pg_database where datname = current_database()))
  and (pg_has_role(session_user, d.refobjid, 'member') or pg_has_role(current_user, d.refobjid, 'member'))
limit 1
"""
# What everybody may call unless it is revoked, and what a roll-back does not take back: the message stays in the log
# that change-data consumers read, the signal was sent. Others of the kind are nobody's unless they are granted.
_PUBLIC = ("pg_logical_emit_message", "pg_terminate_backend", "pg_cancel_backend")
_ACTING = r"""
select p.oid::regprocedure::text as function, p.proname = any($1::text[]) as by_default
from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
where has_schema_privilege(session_user, n.oid, 'usage')
  and (has_function_privilege(session_user, p.oid, 'execute') or has_function_privilege(current_user, p.oid, 'execute'))
  and case when n.nspname = 'pg_catalog' then
        p.proname = any($1::text[])
        or p.proname ~ ('^(pg_switch_wal|pg_create_restore_point|pg_backup_(start|stop)|pg_(start|stop)_backup'
                        || '|pg_reload_conf|pg_rotate_logfile|pg_promote|pg_log_.*|pg_wal_replay_(pause|resume)'
                        || '|pg_stat_reset.*|pg_replication_origin_.*|lo_import|lo_export|pg_read_(binary_)?file'
                        || '|pg_ls_dir|pg_file_.*)$')
      else
        (not l.lanpltrusted and l.lanname not in ('c', 'internal'))
        or (p.proname ~ ('^(dblink(_exec|_connect.*|_send_query|_open)?|pg_file_.*|pg_background_.*'
                         || '|http(_(get|post|put|patch|delete|head))?|schedule(_in_database)?|pg_terminate_.*)$')
            and l.lanname in ('c', 'plpgsql'))
      end
order by 2, 1 limit 1
"""


async def check_role(conn: Session, limits: Limits) -> None:
    """Make sure that the session's role can do nothing but read.

    Raises:
        ToolError: it can do more; the message is for the database's owner.

    """
    if limits.superuser:
        return
    powerful = await conn.fetchval(_POWERFUL)
    if powerful is not None:
        raise _refused(f"with the rights of {powerful}", "Give it a role that may only read")
    owned = await conn.fetchval(_OWNED)
    if owned is not None:
        raise _refused(f"as the owner of {owned}", "Give it a role that owns nothing and may only read")
    found = await conn.fetchrow(_ACTING, [] if limits.public else list(_PUBLIC))
    if found is not None and found["by_default"]:
        raise ToolError(
            f"the query was not sent: every role may call {found['function']} there, which has an effect even in a "
            "read-only "
            "transaction. Revoke it, as docs/howto/tools.md shows, or set allow_public_functions=True."
        )
    if found is not None:
        raise _refused(f"with the right to call {found['function']}", "Revoke it, or give it a role that may only read")


def _refused(how: str, remedy: str) -> ToolError:
    return ToolError(
        f"the query was not sent: the tool connects {how}, and a read-only transaction does not restrict that. "
        f"{remedy}, or set allow_superuser=True."
    )
