"""The words that a redacted log may keep: what everybody's messages are made of.

`replay redact` replaces every word of a text that is not here, so this is a list of what was looked
at and found to name nobody: the function words of English, the words of our own messages and of
Prefect's, of the kernel's and of HTTP's errors, and the names that Prefect and Python have for
their own things. A word that is missing costs a reader something; one too many may cost the owner
of a log more. No word belongs here that tells something about who runs what: a trade, a place, a
person, a product other than Prefect and what it is made of.
"""

from __future__ import annotations

import builtins
import errno
import http
import signal
from functools import cache
from typing import Final

_FUNCTION_WORDS: Final = """
    a about above across after again against all almost along already also although always am
    among an and another any anybody anything are as at be became because become been before
    being below between both but by can could did do does doing done down during each either
    else ended enough even ever every everybody everything few five for four from further get
    gets given gives gone got had has have having he her here him his how however i if in
    instead into is it its itself just last later least less like ll long longer made make makes
    many may me meanwhile might more most much must my neither never next no nobody none nor not
    nothing now of off often on once one only or other others our out over own per perhaps
    rather re same say says see seen several shall she should since so some somebody something
    soon still such than that the their them then there these they this those though three
    through thus to together too toward twice two under until up upon us ve very was way we well
    went were what whatever when where whether which while who whole whom whose why will with
    within without would yes yet you your zero
"""

_OUR_MESSAGES: Final = """
    accept accepted accepts access active acts adopted affected age agent ago alive all_proxy
    allow allowed allows alone alter altered answer answers api archive archived arrive ascii
    ask asked asks associated attempt attempts away back bad basic bearer becomes begin
    beginning begins belongs block blocks boolean boot bound broke broken built-in byte bytes
    call called cancel cancelled cancelling cannot carries cause caused certificate certificates
    cgroup change changed check child choose circles claim claimed claiming clean cleanly clear
    closed closes closing code codes come comes command commands commas commit compaction
    compared complete completed concurrency config configuration conflict connect connected
    connecting connection constraint contains content contradicts copied copy crashed created
    credentials csrf ctx current currently damaged data date days decided decode default delay
    delete deleted deployment deployment_id description detail details died differs digests
    digits directory disabled disk dns document does don due earlier effect empty enabled end
    ending ends engine entered env environment error errors event events evidence examine
    exception_detail exception_message exec executable execute executed exist exists exit exited
    expected expected_start_time expired fail failed failing fails failure false faster field
    file files find finite fired flow flow_id flow_run flow_run_id flow_runs flows folder
    folders follow following follows forbidden foreign format found full future gateway gb
    generated getting gib give goes handed happened header headers held hold holder holds host
    hosts hour hours http http_proxy https https_proxy id ids ignored image immediate
    infrastructure infrastructure_pid inside integrity intent internal interpreter interrupted
    invalid iso job json kb keep keeper kept kernel key kib kill killed kind know known knows
    label large late launch launched launches launching leads leave left length lets letters
    level limit limits line lines list live lives living loaded loc local lock lock_id locked
    locks log logs long look lose lost lower-case machine machines mapping marked match max-late
    maximum may mb means memory message method mib middle minute minutes missing mode module
    moment more move moved ms msg name named names needs nested network new newer
    next_scheduled_start_time non-zero ns nul null number object old older on-uncertain ones oom
    open opened option options order ours out-of-memory outage outcome output override overwrite
    owed owes page parameters parsed part path pause paused pending per permission persisted pid
    pidfd place pluperfect pluperfect_state point poll polled polling port position prefect
    prefect_agent_prefetch_seconds prefect_api_auth_string prefect_api_key
    prefect_api_ssl_cert_file prefect_api_url prefect_client_custom_headers prefix prepare
    present printable process profile profiles program progress proof proposal propose proposed
    protection protocol prove proved proves proxy python queue queues quotations ran range reach
    reached read read-only reading reads ready reason reboot rebooted received record recorded
    records recover recovered recovering recovers redirect redirected redirects refused refuses
    relaunch release remote remove removed repeat repeatable reply report reported reporting
    request request_body requests reschedule rescheduled reset resolution resolve resolved
    resource response restart restarted result retries retry retrying return returned right
    rights root route run run-once run_count running runs said saw scheduled
    scheduled_start_time schema second seconds secret send sending sent separated server
    server's server_default serves service session set set_state setting settings share shares
    shim shut shutdown shutting signal signalled size socket speak spool ssl ssl_cert_file
    standard start started starting state state_details state_name state_type states status step
    stop stopped stopping storage stored str stream streams string submission submissions submit
    submitted succeeded success suspend suspended system table tags take taken takes tell
    temporary term terminal terminate terminated text thread time timed timeout tls token told
    toml took transition transition_id tried tries trouble true trust trusted try trying type
    unavailable unclear understand understood unexpected unicode unique unknown unless unpacked
    unreachable unset untyped updated upper-case uri url us use used user uses using usually utf
    utf8 uuid valid validation value values variable verify version violated void wait waited
    waiting waits wall wanted warn warning watched watches wide word words work work_queue_id
    worker worker.lock working works workspace write writes writing written wrong
"""

_PREFECT: Final = """
    abort aborted absent accept anyio asyncio awaitingconcurrencyslot awaitingretry
    block_documents block_types cached cancelled cancelling completed container crash crashed
    csrf-token deployment-id deployment-name deployment-updated deployments discovered docker
    docker-container examine exited failed filter finished flow-id flow-name flow-run
    flow-run-id flow-run-name flow_run-id h11 health history httpcore httpx image_pull
    impossible infrastructure_document_id infrastructurepending io kubernetes kubernetes-job
    late launch launching lost never_ran no_evidence nonblocking notready paginate paused
    pending pod postgresql process propose_pending pydantic read_run reject relaunch
    report_outcome report_pid reserved resolve resolving resuming retrying rolledback running
    scheduled sigint sigkill sigterm sqlalchemy sqlite started statetype submitting subprocess
    suspended terminal timedout trio uvicorn version wait watch work-pool-id work-pool-name
    work-queue-name work_pools work_queues worker-name
"""

_THE_SYSTEMS: Final = """
    acceptable accessing address allocate argument attached attempted attempting authentication
    authority authorization available avoided broken buffer busy canceled
    certificate_verify_failed chain channel character client communication conditional continue
    corrupted cross-device deadlock defined denied dependency depth descriptor desired
    destination detected device directly domain dropped early endpoint entity errno exceeded
    exchange expectation extended failed-dependency family fault fields function gateway halted
    handle handshake hints hostname identifier illegal implemented inappropriate incomplete
    information input installed insufficient ioctl issuer legal levels libraries library link
    links loop many matches medium misdirected modified multi-status multibyte multihop multiple
    needed negotiates nodename non-authoritative non-socket numerical o ok operation origin
    owner package partial peer permanent permanently permitted pipe possible precondition
    processable processes processing protocols quota reachable reasons recoverable references
    rejected request-uri requested required resources revoked satisfiable section seek
    segmentation self-signed semaphores servname shared slot space specific stale structure
    supported switching symbol symbolic synchronized syntax teardown temporarily timeout timer
    transport unauthorized unprocessable unsupported upgrade users variant verified
"""
"""Of the kernel's errors, of HTTP's phrases, of TLS and of looking up addresses."""

_COMMANDS_AND_PLACES: Final = """
    __init__ __main__ bash bin c call dev dist-packages engine.py env etc home lib lib64 local m
    null opt proc python python3 recent sh site-packages srv tmp traceback usr var venv
    virtualenv
"""

_SETTINGS: Final = """
    agent api async auth block cert client cloud codes colors connection context csrf custom
    database debug default deployment enable enabled extra factor file flow format headers home
    http2 id insecure internal interval jitter key level log loggers logging max mode name
    parameters path pool prefect prefetch prints profile profiles query queue request results
    retries retry run runner seconds server skip ssl storage string support task test timeout
    tls to ui url verify work worker
"""
"""The parts of the names of Prefect's own settings; for environment variables only."""


@cache
def vocabulary() -> frozenset[str]:
    """Return the words that may stay in a text, in lower case."""
    words = " ".join((_FUNCTION_WORDS, _OUR_MESSAGES, _PREFECT, _COMMANDS_AND_PLACES, _THE_SYSTEMS))
    names = [*errno.errorcode.values(), *(each.name for each in signal.Signals)]
    names += [method.value for method in http.HTTPMethod]
    names += [
        name
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    ]
    return frozenset(word.casefold() for word in (*words.split(), *names))


@cache
def setting_words() -> frozenset[str]:
    """Return the parts that a `PREFECT_…` variable's name may keep, in lower case."""
    return frozenset(_SETTINGS.split())
