import json
import threading
import time
from datetime import UTC, datetime

import pytest
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from urllib3.exceptions import HTTPError

from .kube_api import KubeApi

NAMESPACE = "kubeflow"


@pytest.fixture
def api():
    with KubeApi() as api:
        yield api


@pytest.fixture
def core(api):
    return client.CoreV1Api(api.client(retries=False))


@pytest.fixture
def jobs(api):
    return Jobs(client.CustomObjectsApi(api.client(retries=False)))


class Jobs:
    """PyTorchJobs through the real client."""

    def __init__(self, custom):
        self.custom = custom
        self.place = ("kubeflow.org", "v1", NAMESPACE, "pytorchjobs")

    def create(self, obj, **options):
        return self.custom.create_namespaced_custom_object(*self.place, obj, **options)

    def get(self, name):
        return self.custom.get_namespaced_custom_object(*self.place, name)

    def list(self, **options):
        return self.custom.list_namespaced_custom_object(*self.place, **options)

    def names(self, **options):
        return [obj["metadata"]["name"] for obj in self.list(**options)["items"]]

    def patch(self, name, body):
        return self.custom.patch_namespaced_custom_object(*self.place, name, body)

    def delete(self, name, **options):
        return self.custom.delete_namespaced_custom_object(*self.place, name, **options)


def job(name="a", **meta):
    meta = {"name": name, "namespace": NAMESPACE, **meta}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": meta,
        "spec": {"size": 1},
    }


def pod(name="p", phase="Running", state=None, **meta):
    status = {"phase": phase}
    if state is not None:
        status["containerStatuses"] = [{"name": "pytorch", "restartCount": 0, **state}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, **meta},
        "spec": {"containers": [{"name": "pytorch", "image": "i"}]},
        "status": status,
    }


def refusal(call, *args, **options):
    with pytest.raises(ApiException) as caught:
        call(*args, **options)
    return caught.value


def reason(error):
    return error.status, json.loads(error.body)["reason"]


def in_thread(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def eventually(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# Objects


def test_a_created_object_has_a_uid_a_version_and_a_time_and_can_be_created_once(jobs):
    made = jobs.create(job())
    assert {"uid", "resourceVersion", "creationTimestamp"} <= made["metadata"].keys()
    assert jobs.get("a") == made
    assert reason(refusal(jobs.create, job())) == (409, "AlreadyExists")
    assert reason(refusal(jobs.get, "b")) == (404, "NotFound")


def test_a_dry_run_creates_nothing_and_yet_refuses_what_is_wrong(api, jobs):
    jobs.create(job(), dry_run="All")
    assert api.list("pytorchjobs") == []
    assert refusal(jobs.create, job("UPPER"), dry_run="All").status == 422


def test_a_created_object_has_no_status_of_the_clients_making(jobs):
    assert jobs.create({**job(), "status": {"conditions": [1]}})["status"] == {}


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"kind": "TFJob"}, 400),
        ({"apiVersion": "kubeflow.org/v2"}, 400),
        ({"metadata": {"name": "a", "namespace": "other"}}, 400),
        ({"metadata": {"namespace": NAMESPACE}}, 422),
        ({"metadata": {"name": "Big_Name"}}, 422),
        ({"metadata": {"name": "a", "labels": {"run": "x" * 64}}}, 422),
        ({"metadata": {"name": "a", "labels": {"run": 3}}}, 400),
        ({"metadata": {"name": "a", "ownerReferences": [{"kind": "Pod", "name": "p"}]}}, 422),
    ],
)
def test_what_a_real_server_refuses_is_refused(jobs, wrong, status):
    assert refusal(jobs.create, {**job(), **wrong}).status == status


def test_a_namespace_that_is_not_there_takes_nothing(api):
    custom = client.CustomObjectsApi(api.client())
    lost = {**job(), "metadata": {"name": "a"}}
    error = refusal(
        custom.create_namespaced_custom_object, "kubeflow.org", "v1", "lost", "pytorchjobs", lost
    )
    assert error.status == 404
    assert json.loads(error.body)["message"] == 'namespaces "lost" not found'


def test_a_validator_of_the_kind_makes_an_object_invalid(api, jobs):
    def refuse(obj):
        raise ValueError(f"size {obj['spec']['size']} is odd")

    api.validators["PyTorchJob"] = refuse
    error = refusal(jobs.create, job())
    assert reason(error) == (422, "Invalid")
    assert "size 1 is odd" in error.body


def test_lists_are_selected_by_labels_and_names(jobs):
    for name, labels in (
        ("a", {"x": "1", "y": "1"}),
        ("b", {"x": "2", "y": "1"}),
        ("c", {"x": "3"}),
        ("d", {}),
    ):
        jobs.create(job(name, labels=labels))
    wanted = {
        "x=1,y=1": ["a"],
        "x in (1, 3),x": ["a", "c"],
        "y": ["a", "b"],
        "!y": ["c", "d"],
        "x!=1": ["b", "c", "d"],
        "x notin (1,2)": ["c", "d"],
    }
    assert {selector: jobs.names(label_selector=selector) for selector in wanted} == wanted
    assert jobs.names(field_selector="metadata.name=b") == ["b"]
    assert refusal(jobs.list, field_selector="spec.size=1").status == 400
    assert int(jobs.list()["metadata"]["resourceVersion"]) > 0


def test_a_list_comes_in_pages(api, jobs):
    for name in "abc":
        jobs.create(job(name))
    first = jobs.list(limit=2)
    assert first["metadata"]["remainingItemCount"] == 1
    assert jobs.names(limit=2, _continue=first["metadata"]["continue"]) == ["c"]
    api.expire()
    assert refusal(jobs.list, limit=2, _continue=first["metadata"]["continue"]).status == 410


def test_a_patch_merges_and_a_stale_version_in_it_is_a_conflict(jobs):
    old = jobs.create(job(labels={"x": "1", "y": "1"}))
    new = jobs.patch(
        "a", {"metadata": {"labels": {"x": None}}, "spec": {"more": 2}, "status": {"not": "here"}}
    )
    assert new["metadata"]["labels"] == {"y": "1"}
    assert (new["spec"], new["status"], new["metadata"]["generation"]) == (
        {"size": 1, "more": 2},
        {},
        2,
    )
    stale = {
        "metadata": {"resourceVersion": old["metadata"]["resourceVersion"]},
        "spec": {"more": 3},
    }
    assert reason(refusal(jobs.patch, "a", stale)) == (409, "Conflict")
    assert jobs.get("a") == new


def test_a_core_object_takes_a_strategic_merge_patch_and_a_custom_one_does_not(api, core):
    api.put(pod())
    assert core.patch_namespaced_pod(
        "p", NAMESPACE, {"metadata": {"labels": {"x": "1"}}}
    ).metadata.labels == {"x": "1"}
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    path = "/apis/kubeflow.org/v1/namespaces/kubeflow/pytorchjobs/a"
    error = refusal(
        api.client().call_api, path, "PATCH", header_params=strategic, body={"spec": {}}
    )
    assert error.status == 415


def test_the_status_is_written_through_its_subresource_only(jobs):
    jobs.create(job())
    new = {**jobs.get("a"), "spec": {"size": 9}, "status": {"conditions": []}}
    jobs.custom.replace_namespaced_custom_object_status(*jobs.place, "a", new)
    assert (jobs.get("a")["spec"], jobs.get("a")["status"]) == ({"size": 1}, {"conditions": []})
    jobs.custom.patch_namespaced_custom_object_status(*jobs.place, "a", {"status": {"active": 1}})
    assert jobs.get("a")["status"] == {"conditions": [], "active": 1}
    assert (
        refusal(jobs.custom.replace_namespaced_custom_object, *jobs.place, "a", job()).status == 422
    )


def test_a_deleted_object_takes_what_only_it_owned_along(api, jobs):
    owners = [
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "name": n,
            "uid": jobs.create(job(n))["metadata"]["uid"],
        }
        for n in "ab"
    ]
    api.put(pod("of-a", ownerReferences=owners[:1]))
    api.put(pod("of-both", ownerReferences=owners))
    api.put(pod("of-none"))
    assert jobs.delete("a", propagation_policy="Foreground")["status"] == "Success"
    assert [obj["metadata"]["name"] for obj in api.list("pods")] == ["of-both", "of-none"]
    jobs.delete("b")
    assert [obj["metadata"]["name"] for obj in api.list("pods")] == ["of-none"]
    assert reason(refusal(jobs.delete, "b")) == (404, "NotFound")


def test_an_object_of_an_owner_that_is_gone_does_not_stay(api, jobs):
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "gone"}
    jobs.create(job(ownerReferences=[owner]))
    assert api.get("pytorchjobs", NAMESPACE, "a") is None


def test_an_orphaned_object_stays(api, jobs):
    uid = jobs.create(job())["metadata"]["uid"]
    owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "a", "uid": uid}
    api.put(pod(ownerReferences=[owner]))
    jobs.delete("a", propagation_policy="Orphan")
    assert api.get("pods", NAMESPACE, "p")["metadata"]["ownerReferences"] == []


def test_a_deletion_can_be_bound_to_a_uid(api, jobs):
    uid = jobs.create(job())["metadata"]["uid"]
    assert refusal(jobs.delete, "a", body={"preconditions": {"uid": "other"}}).status == 409
    jobs.delete("a", body={"preconditions": {"uid": uid}})
    assert api.list("pytorchjobs") == []


def test_a_selection_can_be_deleted_at_once(api, jobs):
    for name in "ab":
        jobs.create(job(name, labels={"is": name}))
    jobs.custom.delete_collection_namespaced_custom_object(*jobs.place, label_selector="is=a")
    assert jobs.names() == ["b"]
    assert ("kubeflow.org", "pytorchjobs", "deletecollection") in api.verbs_used()


# What the server says of itself


def test_a_kind_that_is_taken_away_is_not_found_and_not_listed():
    with KubeApi(
        without=["trainjobs", "trainingruntimes", "clustertrainingruntimes", "pods"]
    ) as api:
        custom, apis = client.CustomObjectsApi(api.client()), client.ApisApi(api.client())
        place = ("trainer.kubeflow.org", "v1alpha1", NAMESPACE, "trainjobs")
        error = refusal(custom.list_namespaced_custom_object, *place)
        assert (error.status, error.body) == (404, "404 page not found\n")
        groups = [group.name for group in apis.get_api_versions().groups]
        assert "kubeflow.org" in groups
        assert "trainer.kubeflow.org" not in groups
        found = custom.get_api_resources("kubeflow.org", "v1").resources
        assert [(known.name, known.kind, known.namespaced) for known in found] == [
            ("pytorchjobs", "PyTorchJob", True)
        ]
        assert refusal(custom.get_api_resources, "kubeflow.org", "v2").status == 404


def test_version_health_and_access_are_told(api):
    assert client.VersionApi(api.client()).get_code().minor == "33"
    assert (
        api.client().call_api("/readyz", "GET", response_type="str", _return_http_data_only=True)
        == "ok"
    )
    api.allows = lambda attributes: attributes["verb"] == "get"
    access = client.AuthorizationV1Api(api.client())
    for verb, allowed in (("get", True), ("delete", False)):
        attributes = client.V1ResourceAttributes(verb=verb, resource="pods", namespace=NAMESPACE)
        review = client.V1SelfSubjectAccessReview(spec={"resourceAttributes": attributes})
        assert access.create_self_subject_access_review(review).status.allowed is allowed


def test_a_kubeconfig_leads_to_the_server(api, tmp_path):
    path = api.write_kubeconfig(tmp_path / "config", namespace="team-a")
    own = config.new_client_from_config(str(path))
    assert client.CoreV1Api(own).list_namespace().items[0].metadata.name == "default"
    assert config.list_kube_config_contexts(str(path))[1]["context"]["namespace"] == "team-a"


def test_every_request_is_kept_by_the_verb_that_a_role_grants(api, core, jobs):
    jobs.create(job())
    jobs.list()
    jobs.custom.list_cluster_custom_object("kubeflow.org", "v1", "pytorchjobs")
    core.list_namespaced_pod(
        NAMESPACE, watch=True, timeout_seconds=0.01, _preload_content=False
    ).read()
    refusal(core.read_namespaced_pod_log, "p", NAMESPACE)
    jobs.delete("a")
    assert api.verbs_used() == {
        ("kubeflow.org", "pytorchjobs", "create"),
        ("kubeflow.org", "pytorchjobs", "list"),
        ("kubeflow.org", "pytorchjobs", "delete"),
        ("", "pods", "watch"),
        ("", "pods/log", "get"),
    }
    first = api.requests[0]
    assert (first.number, first.name, first.namespace, first.body) == (1, "a", NAMESPACE, job())


# Watches


def events_of(stream, until):
    seen = []
    for event in stream:
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if len(seen) == until:
            return seen
    return seen


def test_a_watch_tells_what_changes_after_its_version(api, jobs):
    version = jobs.create(job())["metadata"]["resourceVersion"]

    def change():
        jobs.create(job("b", labels={"x": "1"}))
        jobs.patch("a", {"spec": {"size": 2}})
        jobs.delete("a")

    stream = watch.Watch().stream(
        client.CustomObjectsApi(api.client()).list_namespaced_custom_object,
        *jobs.place,
        resource_version=version,
    )
    thread = in_thread(change)
    assert events_of(stream, 3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]
    thread.join()
    selected = watch.Watch().stream(jobs.list, label_selector="x=1", timeout_seconds=0.05)
    assert events_of(selected, 9) == [("ADDED", "b")]


def test_an_open_watch_can_be_cut_in_the_middle_or_ended(api, jobs):
    for abruptly in (True, False):
        response = jobs.list(watch=True, _preload_content=False)
        api.cut_streams(abruptly=abruptly)
        if abruptly:
            with pytest.raises(HTTPError):
                response.read()
        else:
            assert response.read() == b""


def test_a_version_that_is_too_old_gives_an_error_event(api, jobs):
    jobs.create(job())
    response = jobs.list(
        watch=True, resource_version=str(api.store.version), _preload_content=False
    )
    api.expire()
    event = json.loads(response.read())
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == (
        "ERROR",
        410,
        "Expired",
    )
    stream = watch.Watch().stream(jobs.list, resource_version="1", timeout_seconds=1)
    assert refusal(list, stream).status == 410


# Logs

RUNNING = {"state": {"running": {}}}
ENDED = {"state": {"terminated": {"exitCode": 1}}}


def test_a_log_is_read_whole_or_in_part(api, core):
    api.put(pod(state=RUNNING))
    for line in ("one", "two", "three"):
        api.write_log(NAMESPACE, "p", line)
    assert core.read_namespaced_pod_log("p", NAMESPACE) == "one\ntwo\nthree\n"
    assert (
        core.read_namespaced_pod_log("p", NAMESPACE, tail_lines=1, container="pytorch") == "three\n"
    )
    assert core.read_namespaced_pod_log("p", NAMESPACE, since_seconds=5) == "one\ntwo\nthree\n"
    assert refusal(core.read_namespaced_pod_log, "p", NAMESPACE, container="no").status == 400
    stamped = core.read_namespaced_pod_log("p", NAMESPACE, timestamps=True).splitlines()[2]
    when, text = stamped.split(" ", 1)
    assert (len(when), when[-1], text) == (30, "Z", "three")


def test_a_log_since_a_time_begins_with_the_whole_second(api):
    api.put(pod(state=RUNNING))
    obj = api.get("pods", NAMESPACE, "p")
    for second, micro in ((1, 900000), (2, 100000), (2, 600000)):
        api.logs.write(obj, f"{second}.{micro}", at=datetime(2026, 1, 1, 0, 0, second, micro, UTC))
    query = [("sinceTime", "2026-01-01T00:00:02.500000Z")]
    path = "/api/v1/namespaces/kubeflow/pods/p/log"
    got = api.client().call_api(
        path, "GET", query_params=query, response_type="str", _return_http_data_only=True
    )
    assert got == "2.100000\n2.600000\n"


def test_a_pod_that_waits_or_is_gone_has_no_log(api, core):
    api.put(pod(phase="Pending"))
    error = refusal(core.read_namespaced_pod_log, "p", NAMESPACE, follow=True)
    assert error.status == 400
    told = 'container "pytorch" in pod "p" is waiting to start: ContainerCreating'
    assert json.loads(error.body)["message"] == told
    api.put(pod(phase="Pending", state={"state": {"waiting": {"reason": "ImagePullBackOff"}}}))
    assert (
        "trying and failing to pull image"
        in refusal(core.read_namespaced_pod_log, "p", NAMESPACE).body
    )
    api.remove("pods", NAMESPACE, "p")
    assert reason(refusal(core.read_namespaced_pod_log, "p", NAMESPACE)) == (404, "NotFound")


def test_a_pod_that_is_on_no_node_yet_has_an_empty_log(api, core):
    unscheduled = {
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    }
    api.put({**pod(), "status": {"phase": "Pending", **unscheduled}})
    assert core.read_namespaced_pod_log("p", NAMESPACE, follow=True) == ""


def test_a_followed_log_ends_with_the_container(api, core):
    api.put(pod(state=RUNNING))
    api.write_log(NAMESPACE, "p", "one")
    lines = watch.Watch().stream(core.read_namespaced_pod_log, "p", NAMESPACE)
    assert next(lines) == "one"
    api.write_log(NAMESPACE, "p", "two")
    assert next(lines) == "two"
    api.write_log(NAMESPACE, "p", "three")
    api.patch("pods", NAMESPACE, "p", pod(state=ENDED))
    assert list(lines) == ["three"]


def test_a_followed_log_can_be_cut(api, core):
    api.put(pod(state=RUNNING))
    response = core.read_namespaced_pod_log("p", NAMESPACE, follow=True, _preload_content=False)
    api.cut_streams()
    with pytest.raises(HTTPError):
        response.read()


def test_each_start_of_a_container_has_a_log_of_its_own(api, core):
    api.put(pod(state=RUNNING))
    assert refusal(core.read_namespaced_pod_log, "p", NAMESPACE, previous=True).status == 400
    api.write_log(NAMESPACE, "p", "first")
    last = {"lastState": ENDED["state"]}
    api.patch(
        "pods",
        NAMESPACE,
        "p",
        pod(state={"state": {"waiting": {"reason": "CrashLoopBackOff"}}, **last}),
    )
    assert core.read_namespaced_pod_log("p", NAMESPACE) == "first\n"
    api.patch("pods", NAMESPACE, "p", pod(state={**RUNNING, **last, "restartCount": 1}))
    api.write_log(NAMESPACE, "p", "second")
    assert core.read_namespaced_pod_log("p", NAMESPACE) == "second\n"
    assert core.read_namespaced_pod_log("p", NAMESPACE, previous=True) == "first\n"


# Faults


@pytest.mark.parametrize("status", [401, 403, 409, 410, 429, 500, 503])
def test_a_request_can_be_told_to_fail(api, jobs, status):
    fault = api.fail(
        verb="list", resource="pytorchjobs", after=1, status=status, headers={"Retry-After": "7"}
    )
    jobs.create(job())
    jobs.list()
    error = refusal(jobs.list)
    assert (error.status, error.headers["Retry-After"], fault.fired) == (status, "7", 1)
    jobs.list()
    assert fault.fired == 1


def test_an_error_can_come_after_the_effect(api, jobs):
    api.fail(verb="create", status=504, handled=True)
    assert refusal(jobs.create, job()).status == 504
    assert jobs.names() == ["a"]


@pytest.mark.parametrize(("handled", "names"), [(False, []), (True, ["a"])])
def test_an_answer_can_be_lost_before_and_after_the_effect(api, jobs, handled, names):
    fault = api.drop(verb="create", handled=handled)
    with pytest.raises(HTTPError):
        jobs.create(job())
    assert (jobs.names(), fault.fired) == (names, 1)


def test_an_outage_closes_every_connection_until_it_is_over(api, core, jobs):
    api.put(pod(state=RUNNING))
    followed = core.read_namespaced_pod_log("p", NAMESPACE, follow=True, _preload_content=False)
    api.outage()
    with pytest.raises(HTTPError):
        followed.read()
    with pytest.raises(HTTPError):
        jobs.list()
    assert len(api.refused) == 1
    api.recover()
    assert jobs.names() == []


def test_a_callback_sees_a_request_before_and_after_its_effect(api, jobs):
    seen = []
    api.on_request(
        lambda number, request, phase: seen.append(
            (number, request.verb, phase, len(api.list("PyTorchJob")))
        )
    )
    jobs.create(job())
    assert seen == [(1, "create", "before", 0), (1, "create", "after", 1)]


def test_many_clients_at_once_make_one_object(api):
    codes = []

    def create():
        try:
            Jobs(client.CustomObjectsApi(api.client())).create(job())
            codes.append(201)
        except ApiException as error:
            codes.append(error.status)

    threads = [in_thread(create) for _ in range(8)]
    for thread in threads:
        thread.join()
    assert sorted(codes) == [201] + [409] * 7


def test_an_error_of_the_server_itself_is_raised_at_the_end():
    def fault(number, request, phase):
        raise RuntimeError("in the callback")

    def use():
        with KubeApi() as api:
            api.on_request(fault)
            with pytest.raises(HTTPError):
                client.VersionApi(api.client(retries=False)).get_code()

    with pytest.raises(RuntimeError, match="in the callback"):
        use()
