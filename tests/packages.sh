#!/bin/sh
# Install the programs that the tests compare with, where that is possible. What stays missing is skipped by name.
set -eu
wanted="zstd lz4 gzip bzip2 7zip tar age openssh-client acl attr libcap2-bin zbar-tools poppler-utils poppler-data gcc libc6-dev e2fsprogs user-mode-linux kmod iproute2 lsscsi sg3-utils mtx mt-st bacula-sd bacula-fd bacula-director bacula-director-sqlite3 bacula-console tgt libiscsi7 wine wine64 gcc-mingw-w64-x86-64-win32"
missing=""
for package in $wanted; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing:$missing"
    apt-get update -qq
    if [ ! -e /usr/sbin/policy-rc.d ]; then # the tests start what they need: no service shall run for them
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "not installed, tests that need them are skipped:$missing"
fi
