"""Which SQL a model may send to PostgreSQL. Runs in the confined process, with sqlglot and the standard library alone.

A statement is parsed, written anew from its tree, and the new text is what PostgreSQL gets: comments, odd literals and
whatever two parsers might read in two ways do not survive that. Then every word of the new text is looked up. Names in
it are quoted, so a word without quotes is a keyword, a type or a function, and only known ones pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Functions that only compute: immutable or stable ones of PostgreSQL 14 to 18, and those that give times, random
# numbers and ids. Not here: what runs SQL from a text (query_to_xml, ts_stat), changes a setting (set_config), reads
# settings that may hold secrets (current_setting), and all that writes, locks, sleeps or signals.
_FUNCTIONS_TEXT = """
abs acos acosd acosh age any_value area array_agg array_append array_cat array_dims array_fill array_length
array_lower array_ndims array_position array_positions array_prepend array_remove array_replace array_reverse
array_sample array_shuffle array_sort array_to_json array_to_string array_to_tsvector array_upper ascii asin asind
asinh atan atan2 atan2d atand atanh avg bit_and bit_count bit_length bit_or bit_xor bool_and bool_or box broadcast
btrim cardinality casefold cbrt ceil ceiling center char_length character_length chr circle clock_timestamp
col_description concat concat_ws convert convert_from convert_to corr cos cosd cosh cot cotd count covar_pop
covar_samp crc32 crc32c cume_dist current_catalog current_database current_date current_role current_schema
current_schemas current_time current_timestamp current_user date_add date_bin date_part date_subtract date_trunc
datemultirange daterange decode degrees dense_rank diagonal diameter div encode enum_first enum_last enum_range erf
erfc every exp factorial family first_value floor format format_type gamma gcd gen_random_uuid generate_series
generate_subscripts get_bit get_byte grouping has_any_column_privilege has_column_privilege has_database_privilege
has_schema_privilege has_table_privilege height host hostmask inet_merge inet_same_family initcap int4multirange
int4range int8multirange int8range is_normalized isempty isfinite json json_agg json_agg_strict json_array
json_array_elements json_array_elements_text json_array_length json_arrayagg json_build_array json_build_object
json_each json_each_text json_exists json_extract_path json_extract_path_text json_object json_object_agg
json_object_agg_strict json_object_agg_unique json_object_keys json_objectagg json_populate_record
json_populate_recordset json_query json_scalar json_serialize json_strip_nulls json_table json_to_record
json_to_recordset json_typeof json_value jsonb_agg jsonb_agg_strict jsonb_array_elements jsonb_array_elements_text
jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_exists jsonb_extract_path
jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique
jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query
jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax
jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof justify_days justify_hours justify_interval lag
last_value lcm lead left length lgamma line ln localtime localtimestamp log log10 lower lower_inc lower_inf lpad lseg
ltrim macaddr8_set7bit make_date make_interval make_time make_timestamp make_timestamptz masklen max md5 min
min_scale mod mode multirange netmask network normalize now nth_value ntile num_nonnulls num_nulls nummultirange
numnode numrange obj_description octet_length parse_ident path percent_rank percentile_cont percentile_disc
pg_backend_pid pg_column_size pg_database_size pg_get_constraintdef pg_get_expr pg_get_function_arguments
pg_get_function_result pg_get_functiondef pg_get_indexdef pg_get_partkeydef pg_get_serial_sequence pg_get_viewdef
pg_has_role pg_indexes_size pg_is_in_recovery pg_relation_size pg_size_bytes pg_size_pretty pg_table_is_visible
pg_table_size pg_total_relation_size pg_typeof phraseto_tsquery pi plainto_tsquery point polygon pow power querytree
quote_ident quote_literal quote_nullable radians radius random random_normal range_agg range_intersect_agg
range_merge rank regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
regexp_split_to_array regexp_split_to_table regexp_substr regr_avgx regr_avgy regr_count regr_intercept regr_r2
regr_slope regr_sxx regr_sxy regr_syy repeat replace reverse right round row_number row_to_json rpad rtrim scale
session_user set_bit set_byte set_masklen setweight sha224 sha256 sha384 sha512 shobj_description sign sin sind sinh
slope split_part sqrt starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array
string_to_table strip strpos substr sum tan tand tanh text timeofday timezone to_ascii to_bin to_char to_date to_hex
to_json to_jsonb to_number to_oct to_regclass to_regnamespace to_regproc to_regprocedure to_regrole to_regtype
to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim_array trim_scale trunc ts_delete ts_filter
ts_headline ts_rank ts_rank_cd tsmultirange tsquery_phrase tsrange tstzmultirange tstzrange tsvector_to_array
unistr unnest upper upper_inc upper_inf uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7 var_pop var_samp
variance version websearch_to_tsquery width width_bucket xml_is_well_formed xmlagg xmlcomment xmlexists xpath
xpath_exists
"""
FUNCTIONS = frozenset(_FUNCTIONS_TEXT.split())
# What the grammar calls like a function, and keywords that a parenthesis may follow.
_BEFORE_PARENTHESIS_TEXT = """
all and any array as between bernoulli by case cast coalesce columns cube distinct else escape except exists extract
filter from greatest group having ilike in intersect interval is lateral least like limit materialized not nullif
offset on or over overlay partition passing position recursive repeatable rollup row rows select sets similar some
substring system tablesample then to trim union using values when where with within xmlconcat xmlelement xmlforest
xmltable
"""
_BEFORE_PARENTHESIS = frozenset(_BEFORE_PARENTHESIS_TEXT.split())
_KEYWORDS_TEXT = """
absent anti asc asymmetric at both collate conditional cross current day default desc document empty end epoch error
exclude false fetch first following for full groups hour inner join keep key keys last leading left local microsecond
microseconds millisecond milliseconds minute month natural next no null nulls object omit only operator ordinality
order others outer path placing preceding quotes range respect right scalar second set strict string symmetric ties
time timestamp trailing true unbounded unconditional unique unknown value window without wrapper year zone
century dayofweek dayofyear decade dow doy isodow isoyear millennium quarter timezone timezone_hour timezone_minute
week julian
"""
_KEYWORDS = _BEFORE_PARENTHESIS | frozenset(_KEYWORDS_TEXT.split())
_TYPES_TEXT = """
bigint bigserial bit boolean bool bytea char character cidr date decimal double float float4 float8 inet int int2
int4 int8 integer interval json jsonb jsonpath macaddr macaddr8 money name numeric oid precision real regclass
regnamespace regproc regprocedure regrole regtype smallint text time timestamp timestamptz timetz tsquery tsvector
uuid varbit varchar varying xml
"""
TYPES = frozenset(_TYPES_TEXT.split())
# PostgreSQL reads `(value).name` as the call `name(value)`.
_FIELD = (
    "a name may follow only the name of a table, as in t.name: what stands behind another value may be a function; "
    "call the function in FROM and give it an alias, as in `from json_each(x) e`, then e.key"
)
_TOKEN = re.compile(
    r"""
    (?P<space>\s+) | (?P<string>'(?:[^']|'')*') | (?P<name>"(?:[^"]|"")+")
    | (?P<number>\.?[0-9](?:[0-9._]|[eE][+-]?[0-9])*) | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<comment>--|/\*) | (?P<sign>[-+*/<>=~!@\#%^&|?:.,()\[\]])
    """,
    re.VERBOSE,
)


class Unsafe(ValueError):
    """The statement is refused; the message is for the model."""


def read_statement(sql: str, functions: Iterable[str] = ()) -> str:
    """Return a statement that reads, written anew; *functions* may be called beside PostgreSQL's own.

    Raises:
        Unsafe: it is not one SELECT, or has something in it that is not known to only read.

    """
    import sqlglot
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

    try:
        trees = sqlglot.parse(sql, read="postgres")
    except (SqlglotError, RecursionError) as exc:
        raise Unsafe(f"this SQL cannot be parsed: {_first(str(exc))}") from None
    if len(trees) != 1 or trees[0] is None:
        raise Unsafe("only one statement is allowed here: one SELECT")
    tree = normalize_identifiers(trees[0], dialect="postgres")
    more = frozenset(name.lower() for name in functions)
    _check_tree(tree, more)
    text = tree.sql(dialect="postgres", identify=True, comments=False)
    _check_words(text, more)
    return text


def _first(text: str) -> str:
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())[:300]


def _check_tree(tree: Any, more: frozenset[str]) -> None:
    """Refuse what does more than select, and literals that two parsers may end in two places."""
    from sqlglot import exp
    from sqlglot.expressions.dml import DML

    if not isinstance(tree, exp.Query | exp.Values):
        raise Unsafe("only a query that returns rows is allowed here: one SELECT")
    acts = (DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Set, exp.Merge)
    odd = (exp.ByteString, exp.UnicodeString, exp.RawString, exp.National, exp.Heredoc, exp.Placeholder, exp.Parameter)
    for node in tree.walk():
        if isinstance(node, acts) and not isinstance(node, exp.Query):
            raise Unsafe(f"{node.key.upper()} is not allowed: only one SELECT that reads is")
        if isinstance(node, odd):
            raise Unsafe("write strings in plain quotes, without E, U& or $; write chr(10) for a line end")
        if isinstance(node, exp.Operator):
            raise Unsafe("OPERATOR(…) is not allowed: write the operator itself")
        if isinstance(node, exp.Anonymous) and not isinstance(node.this, str):
            raise Unsafe("the name of a function may not be quoted")
        named = isinstance(node, exp.Dot) and not isinstance(node.expression, exp.Func | exp.Star)
        if named and not isinstance(node.parent, exp.DataType):  # that is a type of another schema
            raise Unsafe(_FIELD)
        if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func) and _called(node) not in more:
            raise Unsafe("a function of another schema is not allowed: only PostgreSQL's own, without pg_catalog")


def _called(node: Any) -> str:
    """Return the whole name of a function with its schema."""
    return f"{node.this.sql(dialect='postgres')}.{node.expression.name or node.expression.key}".replace('"', "").lower()


def _check_words(text: str, more: frozenset[str]) -> None:
    """Look up each word of the statement as it will be sent."""
    tokens = [("sign", ""), *_tokens(text), ("sign", "")]
    for at, (kind, token) in enumerate(tokens[:-1]):
        before, follows = tokens[at - 1][1].lower(), tokens[at + 1][1]
        word = token.lower()
        if kind == "comment":  # what was none before may have become one: - -1
            raise Unsafe("this SQL has two operators in a row: put parentheses around the second one and its operand")
        if kind == "name" and follows == "(" and not _names_columns(tokens, at):
            raise Unsafe("the name of a function may not be quoted")
        if (kind, token) == ("sign", ".") and follows != "*" and not _follows_name(tokens, at):
            raise Unsafe(_FIELD)
        if kind != "word":
            continue
        if follows != "(":
            if word not in FUNCTIONS | _KEYWORDS | TYPES and before not in ("as", "."):  # these name a type
                raise Unsafe(f"{word} is not allowed: only one SELECT that reads is")
        elif before == "." or word not in FUNCTIONS | _BEFORE_PARENTHESIS | TYPES:
            schema = tokens[at - 2][1].strip('"') + "." if before == "." else ""
            if schema + word not in more:
                raise Unsafe(
                    f"{word}() is not among the functions that may be called here: PostgreSQL's own that only compute"
                )


def _follows_name(tokens: list[tuple[str, str]], at: int) -> bool:
    """Tell whether a dot stands behind the name of a table or a schema; that of a type has no quotes."""
    kind, _ = tokens[at - 1]
    return kind == "name" or (kind == "word" and tokens[at - 2][1].lower() == "as")


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise Unsafe(f"this SQL has {text[at : at + 20]!r} in it, which is not allowed")
        at = found.end()
        if found.lastgroup != "space":
            tokens.append((str(found.lastgroup), found[0]))
    return tokens


def _names_columns(tokens: list[tuple[str, str]], at: int) -> bool:
    """Tell whether a quoted name before a parenthesis is that of a table with its columns, and no function."""
    before = tokens[at - 1][1].lower()
    if before in ("as", "with", "recursive"):
        return True
    end = at + 2
    while end < len(tokens) and (tokens[end][0] == "name" or tokens[end][1] == ","):
        end += 1
    return before == "," and tokens[end : end + 2] == [("sign", ")"), ("word", "AS")]  # a further part of WITH
