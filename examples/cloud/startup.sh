#!/bin/sh
# What a new cloud machine runs: asks the cloud's metadata service what to do, and starts a worker.
#
# Google:     gcloud compute instances create w1 --metadata-from-file startup-script=startup.sh \
#                 --metadata tokenpool-pool=couchdb+https://me@host:6984/pool,tokenpool-password-secret=pool-password
# OpenStack:  openstack server create --user-data startup.sh --property tokenpool-pool=... w1
# EC2:        aws ec2 run-instances --user-data file://startup.sh --metadata-options InstanceMetadataTags=enabled \
#                 --tag-specifications 'ResourceType=instance,Tags=[{Key=tokenpool-pool,Value=...}]'
#
# tokenpool-pool             the pool's URL, without a password
# tokenpool-password-file    a file of the image that holds the password, or
# tokenpool-password-secret  its name in the cloud's own store of secrets (Google; EC2 with the aws command), or
# tokenpool-password         the password itself, which everybody on the machine and in the project can read
# tokenpool-cache, tokenpool-poll, tokenpool-slots, tokenpool-idle-timeout, ...: settings of the same name
# tokenpool-batch            only tokens of this batch
# tokenpool-user             who the worker runs as (tokenpool, made where it is missing)
# tokenpool-program          how tokenpool is called (tokenpool)
# tokenpool-at-end           what root runs when the worker has left, for example poweroff
set -eu
: "${METADATA:=http://169.254.169.254}"
: "${GOOGLE_METADATA:=http://metadata.google.internal}"
: "${GOOGLE_SECRETS:=https://secretmanager.googleapis.com}"
: "${RUN_FOLDER:=/run/tokenpool}"
SETTINGS="pool cache cache-limit poll slots idle-timeout lease grace prefetch scratch scratch-limit spool engine modules cleanup"

# The start of the machine does not wait for the worker, and its end tells the worker.
if [ -d /run/systemd/system ] && [ -z "${TOKENPOOL_STARTED:-}" ]; then
  install -m 0755 "$0" /usr/local/sbin/tokenpool-startup
  exec systemd-run --quiet --collect --unit=tokenpool-startup --setenv=TOKENPOOL_STARTED=1 --property=KillMode=mixed \
    /usr/local/sbin/tokenpool-startup
fi

fail() {
  printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
  exit 2
}

# get URL [HEADER]: a header may be a credential, so it does not go through the command line.
get() {
  printf '%s\n' "${2:-X-From: tokenpool}" |
    curl --silent --fail --noproxy '*' --connect-timeout 2 --max-time 20 --header @- "$1"
}

# What cloud is it? The network may need a moment.
cloud= tries=${TRIES:-30}
while [ -z "$cloud" ]; do
  if properties=$(get "$METADATA/openstack/latest/meta_data.json"); then
    cloud=openstack
  elif get "$GOOGLE_METADATA/computeMetadata/v1/instance/id" "Metadata-Flavor: Google" >/dev/null; then
    cloud=google
  elif session=$(curl --silent --fail --noproxy '*' --connect-timeout 2 --request PUT \
    --header "X-aws-ec2-metadata-token-ttl-seconds: 3600" "$METADATA/latest/api/token"); then
    cloud=ec2
  else
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "no metadata service answers at $METADATA" "this is for machines of a cloud"
    sleep 2
  fi
done

# value NAME: one value of the metadata, nothing where it has none. A machine's own goes before its project's.
value() {
  case $cloud in
    openstack) printf '%s' "$properties" |
      python3 -c 'import json, sys; print(json.load(sys.stdin).get("meta", {}).get(sys.argv[1], ""), end="")' "$1" ;;
    google) get "$GOOGLE_METADATA/computeMetadata/v1/instance/attributes/$1" "Metadata-Flavor: Google" ||
      get "$GOOGLE_METADATA/computeMetadata/v1/project/attributes/$1" "Metadata-Flavor: Google" || true ;;
    ec2) get "$METADATA/latest/meta-data/tags/instance/$1" "X-aws-ec2-metadata-token: $session" || true ;;
  esac
}

# secret NAME: one value of the cloud's store of secrets, as this machine's own account may read it.
secret() {
  case $cloud in
    google)
      base=$GOOGLE_METADATA/computeMetadata/v1
      project=$(get "$base/project/project-id" "Metadata-Flavor: Google")
      access=$(get "$base/instance/service-accounts/default/token" "Metadata-Flavor: Google" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
      get "$GOOGLE_SECRETS/v1/projects/$project/secrets/$1/versions/latest:access" "Authorization: Bearer $access" |
        python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["payload"]["data"]))'
      ;;
    ec2) aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text ;;
    *) fail "this cloud has no store of secrets that this script knows" "use tokenpool-password-file" ;;
  esac
}

for name in $SETTINGS; do
  found=$(value "tokenpool-$name")
  if [ -n "$found" ]; then export "TOKENPOOL_$(printf '%s' "$name" | tr a-z- A-Z_)=$found"; fi
done
[ -n "${TOKENPOOL_POOL:-}" ] || fail "the metadata of this machine has no tokenpool-pool" "set it to the pool's URL"

user=$(value tokenpool-user)
user=${user:-tokenpool}
if [ "$(id -u)" = 0 ] && ! id "$user" >/dev/null 2>&1; then
  useradd --system --create-home --home-dir /var/lib/tokenpool "$user"
fi

# The password is in a file that only the worker can read; it is in no command line and in no environment.
TOKENPOOL_PASSWORD_FILE=$(value tokenpool-password-file)
reference=$(value tokenpool-password-secret)
given=$(value tokenpool-password)
if [ -z "$TOKENPOOL_PASSWORD_FILE" ] && [ -n "$reference$given" ]; then
  if [ -n "$reference" ]; then
    given=$(secret "$reference") || fail "the secret $reference cannot be read" "may this machine's account read it?"
  fi
  mkdir -p "$RUN_FOLDER"
  TOKENPOOL_PASSWORD_FILE=$RUN_FOLDER/password
  rm -f "$TOKENPOOL_PASSWORD_FILE"
  (umask 077 && printf '%s\n' "$given" >"$TOKENPOOL_PASSWORD_FILE")
  if [ "$(id -u)" = 0 ]; then chown "$user" "$TOKENPOOL_PASSWORD_FILE"; fi
fi
if [ -n "$TOKENPOOL_PASSWORD_FILE" ]; then export TOKENPOOL_PASSWORD_FILE; fi
unset given

for folder in "${TOKENPOOL_CACHE:-}" "${TOKENPOOL_SCRATCH:-}"; do
  if [ -n "$folder" ] && [ ! -d "$folder" ]; then
    mkdir -p "$folder"
    if [ "$(id -u)" = 0 ]; then chown "$user" "$folder"; fi
  fi
done

program=$(value tokenpool-program)
batch=$(value tokenpool-batch)
end=$(value tokenpool-at-end)
set -- ${program:-tokenpool} work ${batch:+--batch "$batch"}
if [ "$(id -u)" = 0 ] && [ "$user" != root ]; then
  HOME=$(getent passwd "$user" | cut -d : -f 6)
  export HOME
  set -- setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups -- "$@"
fi
"$@" &
worker=$!
# The worker gives back what it runs before it leaves; wait ends early when the signal comes.
trap 'kill -TERM "$worker"' TERM INT
code=0
wait "$worker" || code=$?
while kill -0 "$worker" 2>/dev/null; do
  code=0
  wait "$worker" || code=$?
done
if [ -n "$end" ]; then sh -c "$end"; fi
exit "$code"
