//! What a misspelt word was meant to be.

/// The known word nearest to `word`, if it is near enough to be meant.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known
        .iter()
        .map(|&known| (distance(&word.to_lowercase(), known), known));
    let (distance, known) = near.min_by_key(|&(distance, _)| distance)?;
    // A third of the letters may be wrong: `prot` is near to `port`, `from` is not.
    (distance * 3 <= word.chars().count().max(known.len())).then_some(known)
}

/// How many letters must be inserted, removed, replaced or exchanged with their neighbour to turn one
/// word into the other (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) =
        (left.chars().take(32).collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let replace = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood_and_another_word_is_not() {
        let known = ["name", "port", "address", "to"];
        let rows = [
            ("prot", Some("port")),
            ("ports", Some("port")),
            ("Port", Some("port")),
            ("addresses", Some("address")),
            ("adress", Some("address")),
            ("addr", None),
            ("too", Some("to")),
            ("from", None),
            ("deny", None),
            ("", None),
            ("foo", None),
        ];
        for (word, meant) in rows {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
    }
}
