#!/bin/sh
# Ray Serve starts HAProxy through this script: sh haproxy.sh -db -f FILE ... (RAY_SERVE_HAPROXY_BINARY_PATH).
# Ray's template opens statistics and metrics to other machines, and the admin socket to other users.
# KALLOS_HAPROXY: path of HAProxy itself.
sed -i \
    -e '/^frontend prometheus$/,/^frontend http/ s/bind :/bind 127.0.0.1:/' \
    -e '/^listen stats$/,$ s/bind \*:/bind 127.0.0.1:/' \
    -e '/stats socket/ s/mode 666/mode 600/' \
    "$3" || exit
exec "$KALLOS_HAPROXY" "$@"
