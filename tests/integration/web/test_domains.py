"""Domains on the console: providers and operators teach them there, each its own."""

from __future__ import annotations

import httpx

from broker.core.quality.syllabus import Domain
from broker.store.quality.domains import load_domains
from tests.integration.routing.examples import COOKING, LAW
from tests.integration.web.bourse import Bourse
from tests.integration.web.conftest import Enter, People, token_in

PAGE = "/console/domains"


async def send(client: httpx.AsyncClient, path: str = PAGE, **form: str) -> httpx.Response:
    """Send a form of the page."""
    token = token_in(await client.get(PAGE))
    return await client.post(path, data={"csrf_token": token} | form)


async def taught(bourse: Bourse) -> dict[str, Domain]:
    """What is taught, by name."""
    async with bourse.engine.connect() as connection:
        return {each.name: each for each in await load_domains(connection)}


async def test_the_form_teaches_and_a_button_forgets(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    provider = await enter(people.acme)
    assert PAGE in (await provider.get("/console")).text
    assert "None yet." in (await provider.get(PAGE)).text
    # As browsers send what stands in a field of many lines.
    answer = await send(provider, name=" law ", examples="\r\n".join(["", *LAW, LAW[0]]))
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    law = (await taught(bourse))["law"]
    assert (law.examples, law.owner_id, law.author) == (tuple(LAW), people.acme.id, "acme")
    page = (await provider.get(PAGE)).text
    assert "<b>law</b>" in page
    assert f"<td>{len(LAW)}</td>" in page
    assert (await send(provider, f"{PAGE}/forget", name="law")).status_code == 303
    assert await taught(bourse) == {}


async def test_what_is_wrong_is_told_and_what_was_written_stays(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    provider = await enter(people.acme)
    few = await send(provider, name="<b>law", examples="\n".join(LAW[:3]))
    assert few.status_code == 400
    assert "20 to 200 different examples; these are 3" in few.text
    assert 'value="&lt;b&gt;law"' in few.text
    assert "\n".join(LAW[:3]) in few.text
    await send(provider, name="law", examples="\n".join(LAW))
    both = await send(provider, name="food", examples="\n".join([*COOKING, LAW[3]]))
    assert both.status_code == 409
    assert list(await taught(bourse)) == ["law"]


async def test_providers_change_their_own_operators_all_and_consumers_see_nothing(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    await send(await enter(people.acme), name="law", examples="\n".join(LAW))
    other, operator, consumer = [
        await enter(each) for each in (people.borealis, people.operator, people.clinic)
    ]
    assert "Forget" not in (await other.get(PAGE)).text
    assert (await send(other, name="law", examples="\n".join(COOKING))).status_code == 403
    assert (await send(other, f"{PAGE}/forget", name="law")).status_code == 404
    assert (await send(operator, name="law", examples="\n".join(LAW[:22]))).status_code == 303
    assert len((await taught(bourse))["law"].examples) == 22
    assert PAGE not in (await consumer.get("/console")).text
    assert (await consumer.get(PAGE)).status_code == 404
    assert (await consumer.post(PAGE, data={"csrf_token": "x"})).status_code == 404
    for path in (PAGE, f"{PAGE}/forget"):
        foreign = await operator.post(path, data={"csrf_token": "other", "name": "law"})
        assert foreign.status_code == 403
    assert list(await taught(bourse)) == ["law"]


async def test_of_a_form_no_more_is_taken_apart_than_a_form_has(
    people: People, enter: Enter
) -> None:
    provider = await enter(people.acme)
    head = {"content-type": "application/x-www-form-urlencoded"}
    for form in (b"a=&" * 300_000, b"&".join(b"%x=" % each for each in range(100_000))):
        refused = await provider.post(PAGE, content=form, headers=head)
        assert refused.status_code == 400
        assert "at most 200 fields" in refused.text
    lines = await send(provider, name="law", examples="\n" * 5_000)
    assert lines.status_code == 400
    assert "at most 200 examples; these are 5000" in lines.text
