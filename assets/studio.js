() => {
    // Gradio's own dark parts, such as the JSON viewer, go by a class on the body.
    document.body.classList.add('dark');

    // Gradio can cancel only what the server has numbered. A Stop that comes before the number waits for it; sent at once
    // it would be refused, and the song would go on unseen.
    const KNOWN_MS = 50;  // from the answer that brings the number to Gradio's having read it
    const fetched = window.fetch;
    let joining = 0, held = null;

    const numbered = () => setTimeout(() => {
        joining -= 1;
        if (joining || !held) return;
        const stop = held;
        held = null;
        stop.click();
    }, KNOWN_MS);

    window.fetch = (...request) => {
        const answer = fetched(...request);
        if (String(request[0]?.url ?? request[0]).includes('/queue/join')) {
            joining += 1;
            answer.then(response => response.clone().text()).then(numbered, numbered);
        }
        return answer;
    };

    document.addEventListener('click', event => {
        const stop = event.target.closest?.('#stop');
        if (!stop || !joining) return;
        event.stopPropagation();
        held = stop;
    }, true);
}
