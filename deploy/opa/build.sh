#!/bin/sh
# build.sh RULES REVISION PRIVATE_KEY OUT.tar.gz: a signed bundle of a folder of rules, without its tests
set -eu
opa build --bundle "$1" --ignore '*_test.rego' --revision "$2" --signing-alg ES256 --signing-key "$3" --output "$4.part"
mv "$4.part" "$4"
