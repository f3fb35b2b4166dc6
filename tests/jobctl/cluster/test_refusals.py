"""What the API server's and Helm's words mean for a user. The texts are recorded from Kubernetes 1.36, Helm 3 and 4."""

import json

import pytest

from jobctl.cluster.refusals import GoneError, Place, error_of, refusal_in, tls_failed, unreachable

PLACE = Place("https://10.0.0.1:6443", "prod", "team")

# what was said → what the user reads
TEXTS = {
    "a missing right": (
        ('jobs.batch is forbidden: User "system:serviceaccount:team:someone" cannot list resource "jobs" in API group '
        '"batch" in the namespace "team"'),
        5, "You (system:serviceaccount:team:someone) may not list jobs.batch in namespace team: docs/rbac.md has",
    ),
    "a request without credentials": (
        ('jobs.batch is forbidden: User "system:anonymous" cannot list resource "jobs" in API group "batch" in the '
        'namespace "team"'),
        5, "https://10.0.0.1:6443 takes you for nobody (system:anonymous): the context prod has no credentials",
    ),
    "Helm's expired credentials": (
        "Error: kubernetes cluster unreachable: the server has asked for the client to provide credentials",
        5, "https://10.0.0.1:6443 does not accept your credentials (401): ",
    ),
    "Helm's login that fails": (
        ('Error: kubernetes cluster unreachable: Get "https://10.0.0.1:6443/version": getting credentials: exec: '
        "executable aws not found\n\nIt looks like you are trying to use a client-go credential plugin that is not"),
        5, "The program by which the context prod logs in gave no credentials: exec: executable aws not found. Run it",
    ),
    "Helm's kubeconfig that can't be used": (
        "Error: kubernetes cluster unreachable: invalid configuration: unable to read client-cert /x for u",
        2, "The kubeconfig can't be used: invalid configuration: unable to read client-cert /x for u. `kubectl config",
    ),
    "a missing right in the whole cluster": (
        'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope',
        5, "You (jane) may not list nodes in the whole cluster: ",
    ),
    "a missing right on a subresource": (
        'pods "x" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "team"',
        5, "You (jane) may not get pods/log in namespace team: ",
    ),
    "Helm's missing right": (
        ('Error: query: failed to query with labels: secrets is forbidden: User "jane" cannot list resource "secrets" '
        'in API group "" in the namespace "team"'),
        5, "You (jane) may not list secrets in namespace team: ",
    ),
    "a quota": (
        ('jobs.batch "x-r2" is forbidden: exceeded quota: small, requested: count/jobs.batch=1, used: '
        "count/jobs.batch=1, limited: count/jobs.batch=1"),
        5, "The quota small of namespace team has no room for it (requested: count/jobs.batch=1, used: ",
    ),
    "a quota that wants sizes": (
        'pods "x" is forbidden: failed quota: sizes: must specify limits.cpu for: worker',
        5, "The quota sizes of namespace team wants every pod to say its size (must specify limits.cpu for: worker): ",
    ),
    "a Pod Security level": (
        'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true (pod must not set)',
        5, "Namespace team has Pod Security level restricted:latest, which refuses these pods: runAsNonRoot != true",
    ),
    "no namespace": ('namespaces "team" not found', 3, "There is no namespace team in prod: name another with -n, "),
    "a namespace that ends": (
        'jobs.batch "x" is forbidden: unable to create new content in namespace team because it is being terminated',
        5, "Namespace team is being deleted: ",
    ),
    "somebody else's object": (
        ('Unable to continue with install: ServiceAccount "x" in namespace "team" exists and cannot be imported into '
        "the current release: invalid ownership metadata"),
        5, "ServiceAccount x in namespace team belongs to something else than this job: choose another --name.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_a_refusal_is_one_sentence_that_names_its_object(case):
    said, status, sentence = TEXTS[case]
    error = refusal_in(said, PLACE)
    assert error is not None and (error.exit_status, str(error)[: len(sentence)]) == (status, sentence)
    assert "\n" not in str(error)


def test_what_is_no_known_refusal_is_left_to_the_caller():
    assert refusal_in("the moon is full", PLACE) is None


ANSWERS = {
    401: (5, "https://10.0.0.1:6443 does not accept your credentials (401)"),
    403: (5, "Could not read pods x: no reason given."),
    404: (3, "Could not read pods x: no reason given."),
    409: (5, "Could not read pods x: no reason given."),
    422: (5, "Could not read pods x (422): no reason given."),
    429: (4, "https://10.0.0.1:6443 could not read pods x (429: no reason given): try again in a while."),
    500: (4, "https://10.0.0.1:6443 could not read pods x (500: no reason given): try again in a while."),
}


@pytest.mark.parametrize("status", ANSWERS)
def test_an_answer_s_status_gives_the_exit_status(status):
    body = json.dumps({"kind": "Status", "code": status, "message": "no reason given"})
    error = error_of(status, body, PLACE, "read pods x")
    exit_status, sentence = ANSWERS[status]
    assert (error.exit_status, str(error)[: len(sentence)]) == (exit_status, sentence)


def test_a_refusal_for_any_other_reason_names_the_job_not_what_was_only_tried_out():
    said = 'pods "x-try" is forbidden: pod rejected: RuntimeClass "nvidia" not found'
    error = error_of(403, json.dumps({"kind": "Status", "message": said}), PLACE, "create pods x-try")
    assert str(error) == 'Namespace team refuses pods of x: pod rejected: RuntimeClass "nvidia" not found.'


TLS = {
    "another's certificate": (
        ("SSLError [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in certificate "
        "chain (_ssl.c:1006)"),
        4, "What answers at https://10.0.0.1:6443 (context prod) can't be trusted: self-signed certificate in certifi",
    ),
    "no TLS at all": (
        "SSLError [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)",
        4, ("The Kubernetes API server https://10.0.0.1:6443 (context prod) does not answer: it speaks no TLS that is "
        "understood here (wrong version number). Is"),
    ),
    "a damaged certificate of one's own": (
        "SSLError [SSL] PEM lib (_ssl.c:3905)",
        2, "The kubeconfig can't be used: the certificate or key of the context prod is damaged ([SSL] PEM lib). ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TLS)
def test_a_secure_connection_that_fails_says_whose_certificate_is_wrong(case):
    said, status, sentence = TLS[case]
    error = tls_failed(PLACE, said)
    assert (error.exit_status, str(error)[: len(sentence)]) == (status, sentence)


def test_an_answer_that_is_no_status_object_is_told_as_it_is():
    assert "upstream is down" in str(error_of(502, "upstream\nis down", PLACE, "read pods x"))


def test_a_forgotten_version_asks_to_list_again():
    assert isinstance(error_of(410, "", PLACE, "watch jobs"), GoneError)


def test_a_server_that_does_not_answer_is_named_with_its_context():
    error = unreachable(PLACE, "Connection refused")
    assert error.exit_status == 4
    assert "https://10.0.0.1:6443 (context prod) does not answer: Connection refused" in str(error)
