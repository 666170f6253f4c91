#!/usr/bin/env bash
# Debian packages that the tests need: Qt, offscreen drawing and a font for the Slicer module; cmake builds the extension; Orthanc is a PACS.
# Installs what is missing.
set -euo pipefail
packages=(libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0 fonts-dejavu-core)
packages+=(cmake)
# A PACS of one's own, and certificates, for the tests of the room `pacs`.
packages+=(orthanc orthanc-dicomweb openssl)
# DicomSRValidator; Java itself would be 190 MB.
if command -v java > /dev/null; then packages+=(pixelmed-apps); fi

if ! command -v apt-get > /dev/null; then
    echo "There is no apt-get here; the tests need what Debian calls ${packages[*]}."
    exit 0
fi
missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${Status}' "$package" 2> /dev/null | grep --quiet 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "All system packages are installed: ${packages[*]}"
    exit 0
fi
root=()
[ "$(id --user)" -eq 0 ] || root=(sudo)
"${root[@]}" apt-get update
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
