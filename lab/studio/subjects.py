"""The drawings of the studio's subjects: SVG in a box of 100 x 100 units, with the ground at y = 100.

`@c`, `@l` and `@d` are placeholders for the subject's colour, a lighter and a darker shade of it. All other
colours are fixed, so that a red car still has black tyres.
"""

DRAWINGS: dict[str, str] = {
    "sailboat": (
        '<path d="M49 4 L49 78 L12 78 Q34 48 49 4Z" fill="@c"/><path d="M53 14 L53 78 L86 78 Q72 42 53 14Z" fill="@l"/>'
        '<path d="M50 0 V84" stroke="#4a3a2c" stroke-width="3"/>'
        '<path d="M6 82 H94 L80 99 H20Z" fill="#6b4226"/><path d="M6 82 H94 L91 86 H9Z" fill="#f2ead8"/>'
    ),
    "lighthouse": (
        '<path d="M36 24 H64 L72 96 H28Z" fill="#f4f0e6"/><path d="M34.5 38 H65.5 L67.5 56 H32.5Z" fill="@c"/>'
        '<path d="M30.5 74 H69.5 L72 96 H28Z" fill="@c"/><rect x="38" y="10" width="24" height="13" fill="#ffe9a0"/>'
        '<path d="M34 11 L50 0 L66 11Z" fill="@d"/><rect x="31" y="22" width="38" height="4" fill="#3b3b42"/>'
        '<rect x="22" y="95" width="56" height="5" rx="2" fill="#77706a"/><rect x="46" y="82" width="8" height="14" fill="#3b2c20"/>'
    ),
    "bicycle": (
        '<g fill="none" stroke="#26262b" stroke-width="4"><circle cx="22" cy="76" r="20"/><circle cx="78" cy="76" r="20"/></g>'
        '<g fill="none" stroke="#8d8d95" stroke-width="1"><path d="M22 56V96M2 76H42M78 56V96M58 76H98M8 62L36 90M36 62L8 90M64 62L92 90M92 62L64 90"/></g>'
        '<path d="M22 76 L40 44 H68 L78 76 M40 44 L50 76 L68 44 M22 76 H50 M37 36 L50 76" fill="none" stroke="@c" stroke-width="5" stroke-linejoin="round"/>'
        '<path d="M68 44 L65 30 H78" fill="none" stroke="#26262b" stroke-width="4"/><rect x="28" y="32" width="18" height="6" rx="3" fill="#26262b"/>'
    ),
    "car": (
        '<path d="M4 84 V66 Q5 60 18 57 L30 36 Q32 32 38 32 H64 Q69 32 73 37 L84 56 Q96 58 97 66 V84Z" fill="@c"/>'
        '<path d="M35 38 H49 V56 H27Z M53 38 H64 L76 56 H53Z" fill="#cfe6f2"/><path d="M4 72 H97 V84 H4Z" fill="@d"/>'
        '<g fill="#222228"><circle cx="25" cy="86" r="13"/><circle cx="77" cy="86" r="13"/></g>'
        '<g fill="#c3c6cc"><circle cx="25" cy="86" r="6"/><circle cx="77" cy="86" r="6"/></g><rect x="90" y="62" width="7" height="6" fill="#fff4b8"/>'
    ),
    "house": (
        '<rect x="14" y="48" width="72" height="52" fill="@c"/><rect x="60" y="48" width="26" height="52" fill="@d"/>'
        '<path d="M6 50 L50 14 L94 50Z" fill="#5a3a33"/><rect x="68" y="16" width="9" height="20" fill="#7b5148"/>'
        '<rect x="42" y="68" width="16" height="32" fill="#4a2f22"/><g fill="#ffe7a3"><rect x="22" y="60" width="13" height="14"/><rect x="66" y="60" width="13" height="14"/></g>'
    ),
    "windmill": (
        '<path d="M38 34 H62 L72 100 H28Z" fill="@c"/><path d="M52 34 H62 L72 100 H56Z" fill="@d"/><path d="M36 36 Q50 14 64 36Z" fill="#54352b"/>'
        '<g fill="#f6efe0" stroke="#6a5442" stroke-width="1.5"><path d="M50 32 L22 4 L14 12Z"/><path d="M50 32 L78 4 L86 12Z"/><path d="M50 32 L22 60 L14 52Z"/><path d="M50 32 L78 60 L86 52Z"/></g>'
        '<circle cx="50" cy="32" r="4" fill="#54352b"/><rect x="44" y="82" width="12" height="18" fill="#3b2a20"/>'
    ),
    "tree": (
        '<path d="M44 100 Q47 78 45 56 H55 Q53 78 57 100Z" fill="#65452c"/>'
        '<circle cx="50" cy="30" r="27" fill="@c"/><circle cx="28" cy="46" r="20" fill="@c"/><circle cx="72" cy="46" r="20" fill="@d"/>'
        '<circle cx="42" cy="22" r="14" fill="@l"/><circle cx="24" cy="42" r="9" fill="@l"/><circle cx="62" cy="34" r="9" fill="@l"/>'
    ),
    "cactus": (
        '<g fill="none" stroke="@c" stroke-linecap="round"><path d="M50 94 V18" stroke-width="22"/><path d="M50 66 H24 V40 M50 56 H76 V30" stroke-width="13" stroke-linejoin="round"/></g>'
        '<g stroke="@d" stroke-width="1.6"><path d="M45 14 V94 M55 14 V94 M24 40 V62 M76 30 V52"/></g><circle cx="50" cy="8" r="6" fill="#ff9fc0"/>'
        '<path d="M30 92 H70 L66 100 H34Z" fill="#b0623c"/>'
    ),
    "mushroom": (
        '<path d="M40 52 Q44 78 36 99 H64 Q56 78 60 52Z" fill="#f3e6cf"/><path d="M56 52 Q54 78 60 99 H64 Q57 78 60 52Z" fill="#d3c2a4"/>'
        '<path d="M4 56 Q10 8 50 8 Q90 8 96 56 Q50 66 4 56Z" fill="@c"/><path d="M62 10 Q92 18 96 56 Q84 60 74 60 Q80 30 62 10Z" fill="@d"/>'
        '<g fill="#fffaf0"><circle cx="34" cy="30" r="7"/><circle cx="58" cy="24" r="5"/><circle cx="22" cy="46" r="5"/><circle cx="72" cy="44" r="6"/><circle cx="48" cy="46" r="5"/></g>'
    ),
    "tulip": (
        '<path d="M50 48 Q48 78 50 100" stroke="#3d7d3c" stroke-width="5" fill="none"/><path d="M49 96 Q22 84 20 54 Q44 66 49 96Z" fill="#4d9a49"/><path d="M51 96 Q78 86 80 60 Q56 70 51 96Z" fill="#3f8440"/>'
        '<path d="M28 10 Q22 50 50 54 Q78 50 72 10 L61 24 L50 4 L39 24Z" fill="@c"/><path d="M50 4 L39 24 Q40 46 50 54 Q60 46 61 24Z" fill="@l"/><path d="M72 10 L61 24 Q60 46 50 54 Q78 50 72 10Z" fill="@d"/>'
    ),
    "horse": (
        '<path d="M22 46 Q40 38 60 44 L70 20 Q74 8 84 10 L97 27 Q95 34 88 32 L82 30 Q80 52 74 64 L74 98 H66 L64 72 Q48 76 36 70 L36 98 H28 L26 70 Q16 62 22 46Z" fill="@c"/>'
        '<path d="M66 70 L68 98 H62 L58 72Z M40 70 L44 98 H38 L32 70Z" fill="@d"/>'
        '<path d="M24 46 Q8 52 10 82 Q18 70 24 60Z M60 44 L70 20 Q73 8 84 10 Q72 14 70 40 Q68 50 60 44Z" fill="#3d2a20"/><circle cx="86" cy="19" r="2" fill="#111"/>'
    ),
    "dog": (
        '<path d="M18 52 Q40 44 62 50 L66 30 Q70 20 84 24 L97 34 Q97 42 86 42 L80 44 Q80 66 72 72 V98 H62 V76 H38 V98 H28 V72 Q18 66 18 52Z" fill="@c"/>'
        '<path d="M66 28 Q58 38 62 54 Q72 48 74 28Z" fill="@d"/><path d="M20 56 Q6 46 6 28 Q14 42 26 48Z" fill="@c"/><circle cx="95" cy="35" r="3.4" fill="#1c1717"/><circle cx="82" cy="31" r="2.4" fill="#1c1717"/>'
        '<path d="M62 76 H68 V98 H62Z M28 76 H33 V98 H28Z" fill="@d"/>'
    ),
    "cat": (
        '<path d="M26 100 Q20 62 40 50 H62 Q80 62 74 100Z" fill="@c"/><path d="M74 98 Q98 96 92 66 Q88 58 84 66 Q88 84 72 86Z" fill="@d"/>'
        '<path d="M26 6 L40 18 H60 L74 6 L76 36 Q74 54 50 54 Q26 54 24 36Z" fill="@c"/><path d="M30 13 L38 20 L31 26Z M70 13 L62 20 L69 26Z" fill="#f0b6ac"/>'
        '<g fill="#20351f"><ellipse cx="40" cy="33" rx="3.6" ry="5"/><ellipse cx="60" cy="33" rx="3.6" ry="5"/></g><path d="M46 41 H54 L50 46Z" fill="#d9837a"/>'
        '<path d="M40 60 Q50 66 60 60 L58 100 H42Z" fill="@l"/>'
    ),
    "butterfly": (
        '<path d="M48 48 Q20 -4 4 14 Q-2 46 48 56Z" fill="@c"/><path d="M52 48 Q80 -4 96 14 Q102 46 52 56Z" fill="@c"/>'
        '<path d="M48 54 Q10 58 16 86 Q36 98 49 62Z" fill="@d"/><path d="M52 54 Q90 58 84 86 Q64 98 51 62Z" fill="@d"/>'
        '<g fill="#fff6df"><circle cx="18" cy="24" r="6"/><circle cx="82" cy="24" r="6"/><circle cx="28" cy="76" r="5"/><circle cx="72" cy="76" r="5"/></g>'
        '<rect x="47" y="36" width="6" height="48" rx="3" fill="#2a1f1f"/><path d="M49 38 Q44 22 36 18 M51 38 Q56 22 64 18" stroke="#2a1f1f" stroke-width="2" fill="none"/>'
    ),
    "hot air balloon": (
        '<path d="M50 0 Q92 0 92 38 Q90 60 62 78 H38 Q10 60 8 38 Q8 0 50 0Z" fill="@c"/>'
        '<path d="M50 0 Q32 6 30 38 Q32 62 44 78 H38 Q10 60 8 38 Q8 0 50 0Z M50 0 Q68 6 70 38 Q68 62 56 78 H62 Q90 60 92 38 Q92 0 50 0Z" fill="@d"/>'
        '<path d="M50 0 Q44 10 43 38 Q44 62 48 78 H52 Q56 62 57 38 Q56 10 50 0Z" fill="#fbf3df"/><path d="M40 78 L43 88 M60 78 L57 88" stroke="#4c3b2a" stroke-width="1.6"/>'
        '<path d="M41 87 H59 L57 100 H43Z" fill="#8a5a33"/>'
    ),
    "airplane": (
        '<path d="M2 52 Q4 42 20 42 L78 44 L92 22 H98 L95 50 Q96 60 84 62 L20 64 Q4 62 2 52Z" fill="#f3f3f0"/>'
        '<path d="M78 44 L92 22 H98 L95 46Z" fill="@c"/><path d="M4 56 Q40 62 95 54 Q95 62 84 62 L20 64 Q6 62 4 56Z" fill="@c"/>'
        '<path d="M38 56 L56 90 H66 L60 56Z" fill="@d"/><path d="M42 44 L56 20 H63 L58 44Z" fill="@d"/><g fill="#45556b"><circle cx="24" cy="49" r="2.4"/><circle cx="34" cy="49" r="2.4"/><circle cx="44" cy="49" r="2.4"/><circle cx="54" cy="49" r="2.4"/><circle cx="64" cy="49" r="2.4"/></g><path d="M6 48 Q10 44 16 45 V51 H5Z" fill="#45556b"/>'
    ),
    "tent": (
        '<path d="M50 26 L2 100 H98Z" fill="@c"/><path d="M50 26 L66 100 H98Z" fill="@d"/><path d="M50 40 L34 100 H66Z" fill="#2e2622"/>'
        '<path d="M50 40 L34 100 H44Z" fill="@l"/><path d="M50 26 L46 18 M50 26 L54 18" stroke="#5b4632" stroke-width="3"/>'
    ),
    "castle": (
        '<path d="M22 44 H78 V100 H22Z" fill="@c"/><path d="M6 30 H30 V100 H6Z M70 30 H94 V100 H70Z" fill="@l"/><path d="M84 30 H94 V100 H84Z" fill="@d"/>'
        '<path d="M22 44 V36 H32 V41 H40 V36 H48 V41 H54 V36 H62 V41 H69 V36 H78 V44Z" fill="@c"/>'
        '<path d="M3 31 L18 4 L33 31Z M67 31 L82 4 L97 31Z" fill="#4d4660"/><path d="M40 100 V78 Q50 64 60 78 V100Z" fill="#3a2a20"/>'
        '<g fill="#2b2532"><rect x="15" y="44" width="6" height="11"/><rect x="79" y="44" width="6" height="11"/><rect x="47" y="50" width="6" height="10"/></g>'
    ),
    "chair": (
        '<path d="M26 4 H70 Q74 4 74 10 V56 H22 V10 Q22 4 26 4Z" fill="@c"/><path d="M30 12 H66 V46 H30Z" fill="@d"/>'
        '<path d="M16 54 H80 Q86 54 86 62 V68 H10 V62 Q10 54 16 54Z" fill="@l"/><path d="M12 68 H20 V100 H13Z M76 68 H84 L83 100 H76Z M28 68 H34 V92 H29Z M62 68 H68 V92 H63Z" fill="#5f4027"/>'
    ),
    "teapot": (
        '<path d="M22 56 Q22 34 50 34 Q78 34 78 56 Q78 92 62 98 H38 Q22 92 22 56Z" fill="@c"/><path d="M62 36 Q78 40 78 56 Q78 92 62 98 H54 Q70 80 62 36Z" fill="@d"/>'
        '<path d="M24 58 Q10 54 4 36 L12 34 Q16 46 26 48Z" fill="@c"/><path d="M76 48 Q98 40 96 62 Q94 82 72 82" fill="none" stroke="@c" stroke-width="6"/>'
        '<path d="M34 34 Q50 22 66 34Z" fill="@l"/><circle cx="50" cy="23" r="5" fill="@d"/><path d="M32 50 Q34 44 40 42" stroke="#ffffff" stroke-width="4" fill="none" stroke-linecap="round"/>'
    ),
    "vase": (
        '<path d="M38 36 H62 Q58 48 70 58 Q82 78 64 100 H36 Q18 78 30 58 Q42 48 38 36Z" fill="@c"/><path d="M54 36 H62 Q58 48 70 58 Q82 78 64 100 H54 Q68 74 54 36Z" fill="@d"/>'
        '<path d="M24 72 Q50 82 76 72 L76 80 Q50 90 25 80Z" fill="@l"/><path d="M50 38 V10 M46 38 Q38 26 30 18 M54 38 Q62 26 70 18" stroke="#4b8142" stroke-width="2.6" fill="none"/>'
        '<g fill="#fff1d0"><circle cx="50" cy="8" r="7"/><circle cx="28" cy="16" r="6"/><circle cx="72" cy="16" r="6"/></g>'
    ),
    "guitar": (
        '<path d="M46 4 H54 V60 H46Z" fill="#4b3122"/><path d="M43 0 H57 V12 H43Z" fill="#2c1d14"/>'
        '<path d="M50 46 Q68 46 66 60 Q78 68 76 82 Q74 100 50 100 Q26 100 24 82 Q22 68 34 60 Q32 46 50 46Z" fill="@c"/>'
        '<path d="M58 47 Q68 48 66 60 Q78 68 76 82 Q74 100 56 100 Q72 78 58 47Z" fill="@d"/><circle cx="50" cy="66" r="8" fill="#22160f"/><rect x="40" y="82" width="20" height="4" fill="#22160f"/><path d="M48 8 V84 M50 8 V84 M52 8 V84" stroke="#e9dfc8" stroke-width=".8"/>'
    ),
    "umbrella": (
        '<path d="M48 40 H52 V90 Q52 99 60 98 Q66 96 64 90" fill="none" stroke="#4a3526" stroke-width="4"/>'
        '<path d="M2 50 Q8 6 50 6 Q92 6 98 50 Q86 40 74 50 Q62 40 50 50 Q38 40 26 50 Q14 40 2 50Z" fill="@c"/>'
        '<path d="M50 6 Q30 16 26 50 Q38 40 50 50 Q62 40 74 50 Q70 16 50 6Z" fill="@l"/><path d="M50 6 Q92 6 98 50 Q86 40 74 50 Q72 18 50 6Z" fill="@d"/><path d="M50 0 V8" stroke="#4a3526" stroke-width="3"/>'
    ),
    "penguin": (
        '<path d="M50 6 Q74 8 74 34 Q86 58 78 84 Q70 98 50 98 Q30 98 22 84 Q14 58 26 34 Q26 8 50 6Z" fill="#23262f"/>'
        '<path d="M50 34 Q68 40 68 68 Q66 94 50 94 Q34 94 32 68 Q32 40 50 34Z" fill="#f7f4ec"/>'
        '<g fill="#f7f4ec"><circle cx="41" cy="24" r="7"/><circle cx="59" cy="24" r="7"/></g><g fill="#15161b"><circle cx="42" cy="24" r="3"/><circle cx="58" cy="24" r="3"/></g><path d="M44 30 H56 L50 39Z" fill="#f0932e"/>'
        '<path d="M28 44 Q50 54 72 44 L74 54 Q50 64 26 54Z" fill="@c"/><path d="M60 54 L70 54 L68 78 H58Z" fill="@d"/><path d="M28 96 H46 V100 H24Z M54 96 H72 L76 100 H54Z" fill="#f0932e"/>'
    ),
}  # fmt: skip
