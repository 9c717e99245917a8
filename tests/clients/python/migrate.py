"""A whole migration with requests and HTTPDigestAuth, as scripts for Atlas live migrations do it.

Run by the tests of the program, which start what is called and name it in the environment.
"""

import os
import time

import requests
from requests.auth import HTTPDigestAuth

PATIENCE = 120
API = os.environ["LIMOSA_URL"] + "/api/atlas/v2"
ORG = os.environ["LIMOSA_ORG_ID"]
GROUP = os.environ["LIMOSA_GROUP_ID"]


def session(private_key):
    made = requests.Session()
    made.auth = HTTPDigestAuth(os.environ["LIMOSA_PUBLIC_KEY"], private_key)
    made.headers["Accept"] = "application/vnd.atlas.2024-05-30+json"
    return made


def wait_for(look, done):
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = look()
        answer.raise_for_status()
        if done(answer.json()):
            return answer.json()
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)


def main():
    atlas = session(os.environ["LIMOSA_PRIVATE_KEY"])
    jobs = f"{API}/groups/{GROUP}/liveMigrations"

    wrong = session("wrong").get(f"{API}/orgs/{ORG}/liveMigrations/availableProjects")
    assert (wrong.status_code, wrong.json()["reason"]) == (401, "Unauthorized"), wrong.text

    projects = wait_for(
        lambda: atlas.get(f"{API}/orgs/{ORG}/liveMigrations/availableProjects"),
        lambda found: any(project["deployments"] for project in found),
    )
    project = projects[0]
    body = {
        "source": {
            "groupId": project["projectId"],
            "clusterName": project["deployments"][0]["name"],
            "managedAuthentication": True,
            "ssl": False,
        },
        "destination": {"groupId": GROUP, "clusterName": "new", "hostnameSchemaType": "PUBLIC"},
        "migrationHosts": [project["migrationHosts"][0]],
        "dropDestinationData": False,
    }
    asked = atlas.post(f"{jobs}/validate", json=body)
    assert (asked.status_code, asked.json()["status"]) == (200, "PENDING"), asked.text
    validation = wait_for(
        lambda: atlas.get(f"{jobs}/validate/{asked.json()['_id']}"),
        lambda found: found["status"] != "PENDING",
    )
    assert validation["status"] == "SUCCESS", validation

    made = atlas.post(jobs, json=body)
    assert (made.status_code, made.json()["status"]) == (201, "NEW"), made.text
    job = f"{jobs}/{made.json()['_id']}"
    early = atlas.put(f"{job}/cutover")
    assert (early.status_code, early.headers["X-Error-Code"]) == (409, "LIVE_MIGRATION_NOT_READY"), early.text
    ready = wait_for(lambda: atlas.get(job), lambda found: found["readyForCutover"])
    assert ready["lagTimeSeconds"] is not None, ready
    accepted = atlas.put(f"{job}/cutover")
    assert (accepted.status_code, accepted.text) == (202, ""), accepted.text
    complete = wait_for(lambda: atlas.get(job), lambda found: found["status"] in ("COMPLETE", "FAILED"))
    assert complete["status"] == "COMPLETE", complete
    print(complete["_id"])


main()
