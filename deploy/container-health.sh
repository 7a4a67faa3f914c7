#!/bin/bash
# The container's health check, without a HTTP client in the image.
exec 3<>"/dev/tcp/127.0.0.1/${LORRY_PORT:-8080}" || exit 1
printf 'GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 5 _ status _ <&3 && [ "$status" = 200 ]
