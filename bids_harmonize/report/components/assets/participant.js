document.documentElement.classList.add('js');
for (const controls of document.querySelectorAll('.controls')) controls.hidden = false;
for (const box of document.querySelectorAll('.compare')) {
  const range = box.querySelector('input'), button = box.querySelector('button');
  let timer = 0;
  const cut = share => {
    range.value = share;
    box.style.setProperty('--cut', range.value + '%');
    range.setAttribute('aria-valuetext', range.value + ' % before, ' + (100 - range.value) + ' % after');
  };
  const alternate = on => {
    clearInterval(timer);
    timer = on ? setInterval(() => cut(range.value > 50 ? 0 : 100), 1000) : 0;
    if (on) cut(range.value > 50 ? 0 : 100);
    button.setAttribute('aria-pressed', on);
  };
  const drag = event => {
    if (event.type === 'pointermove' && !event.buttons) return;
    const frame = event.currentTarget.getBoundingClientRect();
    alternate(false);
    cut(100 * (event.clientX - frame.left) / frame.width);
  };
  range.addEventListener('input', () => { alternate(false); cut(range.value); });
  button.addEventListener('click', () => alternate(!timer));
  for (const pair of box.querySelectorAll('.pair')) {
    pair.addEventListener('pointerdown', drag);
    pair.addEventListener('pointermove', drag);
    pair.addEventListener('dragstart', event => event.preventDefault());
  }
  cut(50);
}
for (const button of document.querySelectorAll('[data-copies]')) {
  const told = document.getElementById(button.dataset.copies + '-told');
  button.addEventListener('click', () => {
    const selection = getSelection(), range = document.createRange();
    range.selectNodeContents(document.getElementById(button.dataset.copies));
    selection.removeAllRanges();
    selection.addRange(range);
    told.textContent = document.execCommand('copy') ? 'Copied.' : 'Selected; copy it with your keyboard.';
  });
}
