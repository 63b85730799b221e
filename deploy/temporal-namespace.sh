#!/bin/sh
# Makes the namespace if it is missing. A server that has just started refuses for some seconds: it is asked again.
set -eu

tries=60
until temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "Temporal at $TEMPORAL_ADDRESS does not make the namespace $TEMPORAL_NAMESPACE: see what is said above." >&2
        exit 1
    fi
    sleep 1
done
