#!/usr/bin/env bash
# A SLURM cluster of two nodes on this one machine, for the tests: munge, slurmctld and two slurmd, as root.
#
#   tests/slurm/cluster.sh run python -m pytest -m slurm    # all three of, with the long test of many requeues:
#
#   eval "$(tests/slurm/cluster.sh up)"    # starts it, and tells this shell where it is
#   python -m pytest -m slurm
#   tests/slurm/cluster.sh down            # stops it by process id and removes all that it left
#
#   tests/slurm/cluster.sh slurmd n2       # starts the daemon of a node again
#
# It needs the packages slurmctld, slurmd, slurm-client and munge. All state is in one folder, SLURM_TEST_CLUSTER (default:
# a new one in /tmp, so that what a killed run left is in nobody's way), except two lines in /etc/hosts, because ranks
# look up their nodes by name.
set -euo pipefail

die() {
  echo "cluster.sh: $*" >&2
  exit 1
}

in_folder() { # sets the names that depend on the cluster's folder
  state=$1
  mark="# genre-lightning test cluster $state"
  export SLURM_CONF=$state/slurm.conf
}

free_ports() { # from the system, all open at once so that none comes twice
  python3 -c '
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in sockets))' "$1"
}

write_configuration() {
  local host controller first second
  host=$(hostname -s)
  read -r controller first second < <(free_ports 3)
  cat > "$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until credentials of its last start have expired, which takes two minutes by default
AuthInfo=socket=$state/munge.socket,cred_expire=5
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/%n
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/%n.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/%n.log
# no cgroups and no systemd in a container
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# the daemons of a real site are more patient
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdTimeout=10
KillWait=15
# the smallest time limit is a minute: a slow machine may use another one for its last save
OverTimeLimit=1
MinJobAge=3600
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$first CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$second CPUs=1 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2
END
}

wait_until() { # the description, then a command that must succeed within 30 seconds
  local what=$1
  shift
  for _ in $(seq 60); do
    if "$@" > /dev/null 2>&1; then return; fi
    sleep 0.5
  done
  tail -n 20 "$state"/*.log >&2
  die "$what did not come up"
}

start_slurmd() {
  slurmd -N "$1"
  wait_until "slurmd of $1" test -s "$state/$1.pid"
}

nodes_are_idle() {
  [ "$(sinfo --noheader --Node --partition main --states idle --format %N | wc -l)" = 2 ]
}

up() {
  [ "$(id -u)" = 0 ] || die "munge and slurmd run as root: run it as root"
  for program in munged slurmctld slurmd sbatch; do
    command -v "$program" > /dev/null || die "no $program: apt-get install slurmctld slurmd slurm-client munge"
  done
  if [ -n "${SLURM_TEST_CLUSTER:-}" ]; then
    in_folder "$SLURM_TEST_CLUSTER"
    mkdir -m 755 "$state" 2> /dev/null || die "$state exists: 'cluster.sh down' stops that cluster"
  else
    in_folder "$(mktemp -d /tmp/genre-lightning-cluster.XXXXXX)" # short: a socket's path has at most 107 characters
    chmod 755 "$state"
  fi
  trap down ERR
  mkdir -m 755 "$state/controller" "$state/n1" "$state/n2"
  printf '127.0.0.1 n1 %s\n127.0.0.1 n2 %s\n' "$mark" "$mark" >> /etc/hosts
  write_configuration
  dd if=/dev/urandom of="$state/munge.key" bs=128 count=1 status=none
  chmod 600 "$state/munge.key"
  munged --key-file="$state/munge.key" --socket="$state/munge.socket" --pid-file="$state/munged.pid" \
    --log-file="$state/munged.log" --seed-file="$state/munge.seed" >&2
  slurmctld
  start_slurmd n1
  start_slurmd n2
  wait_until "the cluster" nodes_are_idle
  printf 'export SLURM_CONF=%q SLURM_TEST_CLUSTER=%q\n' "$SLURM_CONF" "$state"
}

stop() { # the process that a file names, waited for
  local id
  id=$(cat "$1" 2> /dev/null) || return 0
  kill "$id" 2> /dev/null || return 0
  for _ in $(seq 40); do
    kill -0 "$id" 2> /dev/null || return 0
    sleep 0.5
  done
  kill -9 "$id" 2> /dev/null || true
}

no_jobs() {
  [ -z "$(squeue --noheader)" ]
}

down() {
  trap - ERR
  if [ -s "$state/slurmctld.pid" ] && scontrol ping > /dev/null 2>&1; then
    scancel --quiet --state PENDING --user root || true
    scancel --quiet --user root || true
    for _ in $(seq 60); do
      if no_jobs; then break; fi
      sleep 0.5
    done
  fi
  for name in n1 n2 slurmctld munged; do stop "$state/$name.pid"; done
  # /etc/hosts is a mount in many containers: its content can be replaced, the file cannot
  local hosts
  hosts=$(grep -vF "$mark" /etc/hosts || true)
  printf '%s\n' "$hosts" > /etc/hosts
  rm -rf "$state"
}

run() {
  up > /dev/null
  trap down EXIT
  trap 'exit 143' INT TERM
  SLURM_TEST_CLUSTER=$state "$@"
}

running() { # the cluster that `up` started in this shell
  [ -n "${SLURM_TEST_CLUSTER:-}" ] || die "no cluster is named: SLURM_TEST_CLUSTER is its folder, as 'up' printed it"
  in_folder "$SLURM_TEST_CLUSTER"
}

case ${1:-} in
  up) up ;;
  down) running && down ;;
  run) run "${@:2}" ;;
  slurmd) running && start_slurmd "$2" ;;
  *) die "say up, down, run COMMAND or slurmd NODE" ;;
esac
