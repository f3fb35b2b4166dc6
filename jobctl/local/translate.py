"""A rendered manifest → the LocalJob that means the same. What can't mean the same is refused by name."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from jobctl.errors import RefusedError
from jobctl.local.check import check
from jobctl.local.environment import MACHINE_PATHS, WIRING, is_downward_path
from jobctl.local.plan import (
    Claim,
    Container,
    EnvVar,
    Files,
    LocalJob,
    Mount,
    PodTemplate,
    Scratch,
    Volume,
)
from jobctl.local.rules import Action, ExitCodes, FailureRule, PodCondition, SuccessRule, parse_indexes

_FILE_NAME = re.compile(r"[-._a-zA-Z0-9]+")
MAX_COMPLETIONS = 1000  # a process and an address each
NO_LIMIT = 2**31 - 1  # batch/v1's default of backoffLimit beside backoffLimitPerIndex

Dict = dict[str, Any]


def translate(manifest: Sequence[Dict]) -> LocalJob:
    """Raises RefusedError, naming the object and the field, for what the local backend can't run."""
    documents = [document for document in manifest if document]
    for document in documents:
        check(document)
    jobs = [document for document in documents if document["kind"] == "Job"]
    if len(jobs) != 1:
        raise RefusedError(f"The local backend runs manifests with one Job; this one has {len(jobs)}.")
    config_maps = {name_of(document): _files_of(document) for document in documents if document["kind"] == "ConfigMap"}
    return _job(jobs[0], config_maps)


def _is_of_the_chart(job: Dict) -> bool:
    labels = job["metadata"].get("labels") or {}
    return labels.get("app.kubernetes.io/name") == "jobctl"


def name_of(document: Dict) -> str:
    name = document.get("metadata", {}).get("name")
    if not name:
        raise RefusedError(f"A {document['kind']} of the manifest has no metadata.name.")
    return str(name)


def _files_of(config_map: Dict) -> dict[str, bytes]:
    name = name_of(config_map)
    files = {key: str(value).encode() for key, value in (config_map.get("data") or {}).items()}
    for key, value in (config_map.get("binaryData") or {}).items():
        try:
            files[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError) as error:
            raise RefusedError(f"ConfigMap {name}: binaryData.{key} isn't base64.") from error
    for key in files:
        if "/" in key or key in (".", ".."):
            raise RefusedError(f"ConfigMap {name}: {key!r} is no valid key.")
    return files


class _Refuser:
    """Builds errors that begin with the Job's name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, message: str) -> RefusedError:
        return RefusedError(f"Job {self.name}: {message}")


def _job(document: Dict, config_maps: Mapping[str, dict[str, bytes]]) -> LocalJob:
    name = name_of(document)
    spec, refuse = document.get("spec") or {}, _Refuser(name)
    template = spec.get("template") or {}
    if spec.get("completionMode") != "Indexed":
        raise refuse("spec.completionMode must be 'Indexed' for the local backend.")
    completions = _whole(spec, "completions", None, refuse)
    if completions is None or not 1 <= completions <= MAX_COMPLETIONS:
        raise refuse(f"spec.completions must lie within 1 and {MAX_COMPLETIONS} for the local backend.")
    per_index = _whole(spec, "backoffLimitPerIndex", None, refuse)
    max_failed = _whole(spec, "maxFailedIndexes", None, refuse)
    if max_failed is not None and per_index is None:
        raise refuse("spec.maxFailedIndexes needs spec.backoffLimitPerIndex.")
    deadline = _whole(spec, "activeDeadlineSeconds", None, refuse)
    pod = _template(template, config_maps, refuse)
    if _is_of_the_chart(document):
        env = tuple(variable._replace(is_wired=variable.name in WIRING) for variable in pod.container.env)
        pod = pod._replace(container=pod.container._replace(env=env))
    return LocalJob(
        name=name,
        namespace=document["metadata"].get("namespace") or "default",
        completions=completions,
        parallelism=_whole(spec, "parallelism", 1, refuse) or 0,
        template=pod,
        backoff_limit=_whole(spec, "backoffLimit", 6 if per_index is None else NO_LIMIT, refuse),
        backoff_limit_per_index=per_index,
        max_failed_indexes=max_failed,
        failure_rules=_failure_rules(spec, per_index, pod.container.name, refuse),
        success_rules=_success_rules(spec, completions, refuse),
        suspend=bool(spec.get("suspend")),
        active_deadline_seconds=None if deadline is None else float(deadline),
    )


def _whole(spec: Dict, key: str, default: int | None, refuse: _Refuser) -> int | None:
    value = spec.get(key)
    if value is None:
        return default
    if value < 0:
        raise refuse(f"spec.{key} must be 0 or more, not {value}.")
    return int(value)


def _failure_rules(spec: Dict, per_index: int | None, container: str, refuse: _Refuser) -> tuple[FailureRule, ...]:
    rules = []
    for number, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or []):
        where = f"spec.podFailurePolicy.rules[{number}]"
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if (codes is None) == (not conditions):
            raise refuse(f"{where} needs exactly one of onExitCodes and onPodConditions.")
        if rule.get("action") not in list(Action):
            raise refuse(f"{where}.action is missing.")
        if rule["action"] == Action.FAIL_INDEX and per_index is None:
            raise refuse(f"{where}.action FailIndex needs spec.backoffLimitPerIndex.")
        rules.append(
            FailureRule(
                Action(rule["action"]),
                None if codes is None else _exit_codes(codes, f"{where}.onExitCodes", container, refuse),
                tuple(PodCondition(c["type"], c.get("status", "True")) for c in conditions or []),
            )
        )
    return tuple(rules)


def _exit_codes(codes: Dict, where: str, container: str, refuse: _Refuser) -> ExitCodes:
    values, operator, name = codes.get("values") or [], codes.get("operator"), codes.get("containerName")
    if operator is None or not values or any(type(value) is not int for value in values):
        raise refuse(f"{where} needs an operator, and values that are a list of whole numbers.")
    if operator == "In" and 0 in values:
        raise refuse(f"{where}.values: 0 isn't allowed with In.")
    if name is not None and name != container:
        raise refuse(f"{where}.containerName: there is no container {name!r}, only {container!r}.")
    return ExitCodes(operator, frozenset(values), name)


def _success_rules(spec: Dict, completions: int, refuse: _Refuser) -> tuple[SuccessRule, ...]:
    rules = []
    for number, rule in enumerate((spec.get("successPolicy") or {}).get("rules") or []):
        where = f"spec.successPolicy.rules[{number}]"
        text, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        try:
            indexes = None if text is None else parse_indexes(text)
        except ValueError as error:
            raise refuse(f"{where}.succeededIndexes: {text!r} isn't a list of indexes like '0,2-4'.") from error
        if indexes is not None and (not indexes or max(indexes) >= completions):
            raise refuse(f"{where}.succeededIndexes must lie within 0 and {completions - 1}, not {text!r}.")
        if indexes is None and count is None:
            raise refuse(f"{where} needs succeededIndexes or succeededCount.")
        if count is not None and not 1 <= count <= len(indexes or range(completions)):
            raise refuse(f"{where}.succeededCount must lie within 1 and the number of indexes, not {count}.")
        rules.append(SuccessRule(indexes, count))
    return tuple(rules)


def _template(template: Dict, config_maps: Mapping[str, dict[str, bytes]], refuse: _Refuser) -> PodTemplate:
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    containers = spec.get("containers") or []
    if len(containers) != 1:
        raise refuse(
            f"spec.template.spec.containers: one container a pod for the local backend, not {len(containers)}."
        )
    if spec.get("restartPolicy") != "Never":
        raise refuse("spec.template.spec.restartPolicy must be 'Never' for the local backend.")
    volumes = {
        str(volume.get("name")): _volume(volume, f"spec.template.spec.volumes[{number}]", config_maps, refuse)
        for number, volume in enumerate(spec.get("volumes") or [])
    }
    grace = spec.get("terminationGracePeriodSeconds")
    return PodTemplate(
        container=_container(containers[0], config_maps, volumes, refuse),
        labels=_strings(metadata.get("labels"), "labels", refuse),
        annotations=_strings(metadata.get("annotations"), "annotations", refuse),
        volumes=volumes,
        subdomain=spec.get("subdomain"),
        service_account=spec.get("serviceAccountName") or "default",
        grace_seconds=30.0 if grace is None else float(grace),
    )


def _strings(values: Dict | None, what: str, refuse: _Refuser) -> dict[str, str]:
    for key, value in (values or {}).items():
        if not isinstance(value, str):
            raise refuse(f"spec.template.metadata.{what}.{key} must be a string, not {value!r}.")
    return dict(values or {})


def _volume(volume: Dict, where: str, config_maps: Mapping[str, dict[str, bytes]], refuse: _Refuser) -> Volume:
    name = volume.get("name")
    kinds = [kind for kind in ("persistentVolumeClaim", "configMap", "emptyDir") if volume.get(kind) is not None]
    if not name or len(kinds) != 1:
        raise refuse(f"{where} ({name}) needs exactly one of persistentVolumeClaim, configMap and emptyDir.")
    source = volume[kinds[0]]
    if kinds == ["emptyDir"]:
        return Scratch()
    if kinds == ["persistentVolumeClaim"]:
        claim = source.get("claimName") or ""
        if not claim or "/" in claim or claim.startswith("."):
            raise refuse(f"{where}.persistentVolumeClaim.claimName: {claim!r} is no valid name.")
        return Claim(claim)
    files = config_maps.get(source.get("name"))
    if files is None:
        raise refuse(f"{where}.configMap: the manifest has no ConfigMap {source.get('name')!r}.")
    return Files(_items(files, source, f"{where}.configMap", refuse), source.get("defaultMode", 0o644))


def _items(files: dict[str, bytes], source: Dict, where: str, refuse: _Refuser) -> dict[str, bytes]:
    if not source.get("items"):
        return files
    chosen = {}
    for number, item in enumerate(source["items"]):
        key, path = item.get("key"), item.get("path")
        if key not in files:
            raise refuse(f"{where}.items[{number}].key: ConfigMap {source['name']} has no {key!r}.")
        chosen[_inside(path, f"{where}.items[{number}].path", refuse)] = files[key]
    return chosen


def _inside(path: str | None, where: str, refuse: _Refuser) -> str:
    """A relative path that stays below its root."""
    if not path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise refuse(f"{where} must be a relative path without '..', not {path!r}.")
    return path


def _container(
    container: Dict, config_maps: Mapping[str, dict[str, bytes]], volumes: Mapping[str, Volume], refuse: _Refuser
) -> Container:
    where = "spec.template.spec.containers[0]"
    words: dict[str, tuple[str, ...]] = {}
    for key in ("command", "args"):
        words[key] = tuple(container.get(key) or ())
        if any(not isinstance(word, str) for word in words[key]):
            raise refuse(f"{where}.{key} must be a list of strings.")
    if not container.get("name") or not words["command"]:
        raise refuse(f"{where} needs a name and a command: without an image there is no program to run otherwise.")
    env = [
        _env(item, f"{where}.env[{number}]", config_maps, refuse)
        for number, item in enumerate(container.get("env") or [])
    ]
    mounts = [
        _mount(item, f"{where}.volumeMounts[{number}]", volumes, refuse)
        for number, item in enumerate(container.get("volumeMounts") or [])
    ]
    directory = container.get("workingDir")
    if directory is not None and not any(
        PurePosixPath(directory).is_relative_to(mount.path) and mount.path not in MACHINE_PATHS for mount in mounts
    ):
        raise refuse(f"{where}.workingDir: {directory!r} lies below no mount, so it can't be found on this machine.")
    return Container(
        name=container["name"],
        command=words["command"],
        args=words["args"],
        env=tuple(env),
        mounts=tuple(mounts),
        working_dir=directory,
        termination_path=container.get("terminationMessagePath") or "/dev/termination-log",
        termination_from_log=container.get("terminationMessagePolicy") == "FallbackToLogsOnError",
    )


def _env(item: Dict, where: str, config_maps: Mapping[str, dict[str, bytes]], refuse: _Refuser) -> EnvVar:
    name, source = item.get("name"), item.get("valueFrom")
    if not name or "=" in name:
        raise refuse(f"{where} has no valid name.")
    if source is None:
        return EnvVar(name, item.get("value") or "")
    if item.get("value"):
        raise refuse(f"{where} ({name}) has both value and valueFrom.")
    if field := source.get("fieldRef"):
        path = field.get("fieldPath") or ""
        if not is_downward_path(path):
            raise refuse(f"{where} ({name}): the downward API has no field {path!r}.")
        return EnvVar(name, field_path=path)
    if secret := source.get("secretKeyRef"):
        return EnvVar(name, secret=(_word(secret, "name", where, refuse), _word(secret, "key", where, refuse)))
    reference = source.get("configMapKeyRef") or {}
    try:
        text = config_maps[reference["name"]][reference["key"]].decode()
    except KeyError as error:
        raise refuse(f"{where} ({name}): the manifest has no ConfigMap with the key {reference}.") from error
    except UnicodeDecodeError as error:
        raise refuse(f"{where} ({name}): the ConfigMap's key {reference['key']} isn't text.") from error
    return EnvVar(name, text.replace("$", "$$"))  # values of a ConfigMap aren't expanded


def _word(secret: Dict, part: str, where: str, refuse: _Refuser) -> str:
    """A Secret's name or key: also a file's name here."""
    word = secret.get(part) or ""
    if not _FILE_NAME.fullmatch(word) or word in (".", ".."):
        raise refuse(f"{where}.valueFrom.secretKeyRef.{part}: {word!r} is no valid {part}.")
    return word


def _mount(item: Dict, where: str, volumes: Mapping[str, Volume], refuse: _Refuser) -> Mount:
    volume, path, sub_path = str(item.get("name")), item.get("mountPath") or "", item.get("subPath") or ""
    if volume not in volumes:
        raise refuse(f"{where}: there is no volume {volume!r}.")
    if not path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise refuse(f"{where}.mountPath must be an absolute path without '..', not {path!r}.")
    if sub_path:
        _inside(sub_path, f"{where}.subPath", refuse)
    return Mount(volume, path, sub_path)
