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

    // A song that is dropped beside every drop zone is opened. Without this the browser would leave the page for it.
    const carries = event => event.dataTransfer?.types?.includes('Files') && !event.defaultPrevented;
    const dragging = on => document.body.classList.toggle('dragging', on);

    document.addEventListener('dragover', event => {
        dragging(carries(event));
        if (carries(event)) event.preventDefault();
    });
    document.addEventListener('dragleave', event => {
        if (!event.relatedTarget) dragging(false);
    });
    document.addEventListener('drop', () => dragging(false), true);
    document.addEventListener('drop', event => {
        if (!carries(event)) return;
        event.preventDefault();
        const input = document.querySelector('#files input[type=file]');
        if (!input || !event.dataTransfer.files.length) return;
        const one = new DataTransfer();
        one.items.add(event.dataTransfer.files[0]);
        input.files = one.files;
        input.dispatchEvent(new Event('change', { bubbles: true }));
    });
}
