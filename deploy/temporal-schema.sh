#!/bin/sh
# Makes Temporal's databases and brings their schemas up to the version of this image, by the schemas inside the tool.
# What is there already is left alone, so it may run at every start. The server is named by SQL_* variables.
set -eu

for kind in temporal visibility; do
    case $kind in
    temporal) database=temporal ;;
    visibility) database=temporal_visibility ;;
    esac
    temporal-sql-tool --db "$database" create
    temporal-sql-tool --db "$database" setup-schema -v 0.0
    temporal-sql-tool --db "$database" update-schema --schema-name "postgresql/v12/$kind"
done
