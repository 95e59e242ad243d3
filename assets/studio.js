() => {
    // Gradio's own dark parts, such as the JSON viewer, go by a class on the body.
    document.body.classList.add('dark');

    // Gradio can cancel only what the server has numbered. A Stop that comes before the number waits for it; sent at once
    // it would be refused, and the song would go on unseen.
    const KNOWN_MS = 50;  // from the answer that brings the number to Gradio's having read it
    const FULL = 503;
    const SOON_MS = 400;  // who is next in an empty queue is not waiting
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
        const answer = fetched(...request), url = String(request[0]?.url ?? request[0]);
        if (url.includes('/queue/join')) {
            joining += 1;
            window.studio.full = window.studio.stopped = false;
            answer.then(response => {
                window.studio.full = response.status === FULL;
                return response.clone().text();
            }).then(numbered, numbered);
        }
        if (url.includes('/queue/data')) answer.then(response => queued(response.clone().body), () => {});
        return answer;
    };

    document.addEventListener('click', event => {
        const stop = event.target.closest?.('#stop');
        if (stop) window.studio.stopped = true;
        if (!stop || !joining) return;
        event.stopPropagation();
        held = stop;
    }, true);

    // Gradio is told by the server who waits how long, and says nothing of it while its own progress is hidden.
    async function queued(body) {
        try {
            for await (const words of body.pipeThrough(new TextDecoderStream())) {
                const ranks = [...words.matchAll(/"msg":"estimation".*?"rank":(\d+)/g)];
                if (ranks.length) setTimeout(wait, SOON_MS, Number(ranks.at(-1)[1]) + 1);
            }
        } catch { /* the line broke: Gradio says so */ }
    }

    function wait(before) {
        const line = document.querySelector('#status p.waiting');
        if (line) line.textContent = `Waiting for your turn · ${before} ${before > 1 ? 'songs' : 'song'} before yours`;
    }

    // Gradio's panels do not say whether they are open.
    const expand = () => document.querySelectorAll('.label-wrap').forEach(
        button => button.setAttribute('aria-expanded', button.classList.contains('open')));
    document.addEventListener('click', event => { if (event.target.closest?.('.label-wrap')) setTimeout(expand); });
    expand();

    // Keyboard shortcuts; ui.py lists them on the page.
    const typing = e => e.closest?.('input:not([type=range], [type=radio], [type=checkbox]), textarea, [contenteditable]');
    const own = e => e.closest?.('button, input, textarea, select, summary, a, [role=slider], [role=radio], [role=tab]');
    const press = selector => {
        const button = [...document.querySelectorAll(selector)].find(e => e.checkVisibility() && !e.disabled);
        button?.click();
        return button;
    };

    function neighbour(by) {
        const rows = [...document.querySelectorAll('#takes .show')];
        const at = rows.findIndex(row => row.getAttribute('aria-current') === 'true');
        rows[Math.min(Math.max(at + by, 0), rows.length - 1)]?.click();
    }

    document.addEventListener('keydown', event => {
        const { key, target, shiftKey } = event;
        if (event.ctrlKey || event.metaKey) {
            const button = { Enter: '#act button.primary', '.': '#stop' }[key];
            if (button && press(button)) event.preventDefault();
        } else if (event.altKey || typing(target)) {
            return;
        } else if (key === ' ' && !own(target)) {
            if (press('#player .play')) event.preventDefault();
        } else if (key === 'n' || key === 'N') {
            neighbour(shiftKey ? -1 : 1);
        }
    });

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
