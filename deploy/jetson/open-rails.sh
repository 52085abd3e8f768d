#!/bin/sh
# Lets the group video read the power rails of JetPack 4.6.x, where they are root's alone. Installed with
# deploy/systemd/wenet-rails.service, which runs it at every start. From JetPack 5 on the sensor's files are others, which
# everybody should be able to read. NOT YET RUN ON A BOARD.
#
# A script, because the chip's folder is a link, and systemd-tmpfiles follows none: it would change nothing, in silence.
set -eu

root=${ROOT:-} # for tests
opened=0
for file in "$root"/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_* \
  "$root"/sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_power*_input \
  "$root"/sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_voltage*_input \
  "$root"/sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_current*_input; do
  [ -e "$file" ] || continue
  chgrp video "$file"
  chmod 0440 "$file"
  opened=$((opened + 1))
done
echo "open-rails: $opened files of the power sensor may be read by the group video"
