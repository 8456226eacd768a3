// What axe would look for, as far as the console goes; gives a list of complaints.
() => {
  const found = [];
  const say = (what, node) => found.push(`${what}: ${node.outerHTML.slice(0, 120)}`);
  const all = selector => [...document.querySelectorAll(selector)];
  const seen = node => node.checkVisibility() && !node.closest('.unseen, .skip');
  if (!document.documentElement.lang) found.push('no lang');
  if (!document.title.trim()) found.push('no title');
  for (const one of ['main', 'h1', 'header']) {
    if (all(one).length !== 1) found.push(`${all(one).length} of ${one}`);
  }
  let level = 0;
  for (const heading of all('h1, h2, h3, h4').filter(seen)) {
    const now = Number(heading.tagName[1]);
    if (now > level + 1) say('heading skips a level', heading);
    level = now;
  }
  const ids = all('[id]').map(node => node.id);
  if (new Set(ids).size !== ids.length) found.push('an id twice');
  for (const node of all('[aria-labelledby], [aria-describedby]')) {
    const named = `${node.getAttribute('aria-labelledby') || ''} ${node.getAttribute('aria-describedby') || ''}`;
    for (const id of named.split(/\s+/).filter(Boolean)) {
      if (!document.getElementById(id)) say(`refers to ${id}`, node);
    }
  }
  for (const field of all('input:not([type=hidden]), textarea, select')) {
    if (!field.labels.length) say('no label', field);
  }
  for (const node of all('a, button, summary')) {
    if (!node.textContent.trim()) say('no name', node);
    if (node.tabIndex !== 0) say('not in the order of the keyboard', node);
  }
  if (all('[tabindex]').some(node => node.tabIndex > 0)) found.push('a tabindex above 0');
  for (const node of all('button, input:not([type=hidden]), textarea, summary, nav a, h2 a').filter(seen)) {
    const box = node.getBoundingClientRect();
    if (box.height < 43.9) say(`${box.height} px high`, node);
  }
  const rgb = text => text.match(/[\d.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = color.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = rgb(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  for (const node of all('body *').filter(seen)) {
    if (![...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) say(`contrast ${ratio.toFixed(2)}`, node);
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push('it scrolls sideways');
  return found;
}
